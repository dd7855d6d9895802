"""The Postgres transport alone: what a job costs in it, by verb, without worker and handlers. Beside it, the floor.

    python -m benchmarks.postgres_agent [n] [--batch 500]

Wall time, and processor time of this process and of the server: on a busy machine only the latter compare.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable
from typing import TypeVar

from benchmarks.floors import postgres_loop as floor
from benchmarks.postgres_server import Server
from benchmarks.sqlite_agent import job, settlement
from jobmaster.cli.eventloop import run_async
from jobmaster.contracts.clock import SystemClock
from jobmaster.master import open_master
from jobmaster_agents.postgres import PostgresAgent

T = TypeVar("T")

BATCH_IN = 1_000
FAR_US = 1 << 60


class Timer:
    """Microseconds by verb: elapsed, of this process, of the server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    async def time(self, verb: str, call: Awaitable[T]) -> T:
        before = self._now()
        try:
            return await call
        finally:
            self.spent[verb] = [s + b - a for s, a, b in zip(self.spent[verb], before, self._now(), strict=True)]

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter() * 1e6, time.process_time() * 1e6, (self._server.cpu_seconds() or 0.0) * 1e6


async def measure(server: Server, url: str, n: int, batch: int) -> Timer:
    agent = PostgresAgent(url, cluster="bench", name="transport-1")
    master = open_master(url, cluster="bench", clock=SystemClock())
    await agent.open()
    await master.open()
    outbox = agent.traits.shared_outbox or ""
    timer = Timer(server)
    now_us = time.time_ns() // 1_000
    batches = [[job(now_us) for _ in range(BATCH_IN)] for _ in range(n // BATCH_IN)]

    async def put() -> None:
        for each in batches:
            await agent.put(each, FAR_US)

    # All of one verb at a time: the server's clock ticks only every 10 ms.
    await timer.time("put", put())
    held = []

    async def claim() -> None:
        while jobs := await agent.claim("w1", {"default": batch}, frozenset({"no-op"}), batch, 600_000_000):
            held.append(jobs)

    await timer.time("claim", claim())

    async def settle() -> None:
        for jobs in held:
            await agent.settle([settlement(each, now_us) for each in jobs])

    await timer.time("settle", settle())

    async def move() -> None:
        while await agent.changes(1):
            await master.move(agent.name, outbox, 1_000)

    await timer.time("move", move())
    assert sum(map(len, held)) == n
    await master.close()
    await agent.close()
    return timer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=20_000)
    parser.add_argument("--batch", type=int, default=500)
    options = parser.parse_args()
    server, n = Server(), options.n
    try:
        found = run_async(floor.drain(asyncio.run(server.fresh("floor")), n))
        print(
            f"floor  enqueue {1e6 / found['enqueue_per_s']:6.1f} us/job, drain {1e6 / found['drain_per_s']:6.1f} us/job"
        )
        url = asyncio.run(server.fresh("agent"))
        for verb, (wall, own, its) in run_async(measure(server, url, n, options.batch)).spent.items():
            print(f"{verb:6} {wall / n:6.1f} us/job, here {own / n:6.1f}, server {its / n:6.1f} us of processor")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
