"""The SQLite transport alone: what a job costs in it, by verb, without worker and handlers. Beside it, the floor.

    python -m benchmarks.sqlite_agent [n] [--busy]

`--busy` keeps another thread running Python all the time, as handlers do.
"""

import asyncio
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from benchmarks.floors import sqlite_loop as floor
from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.values import Settlement
from jobmaster.master import open_master
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster_agents.sqlite import SqliteAgent

T = TypeVar("T")

BATCH_IN, BATCH_OUT = 1_000, 500
NEVER_US = 1 << 60


class Timer:
    """Seconds by verb, and of them those in which this process had a processor: on a busy machine only they compare."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.worked: dict[str, float] = defaultdict(float)

    async def time(self, verb: str, call: Awaitable[T]) -> T:
        began, at = time.perf_counter(), time.process_time()
        try:
            return await call
        finally:
            self.spent[verb] += time.perf_counter() - began
            self.worked[verb] += time.process_time() - at


def job(now_us: int) -> Job:
    return Job(
        id=new_id(), handler="no-op", created_us=now_us, original_due_us=now_us, due_us=now_us, data=b'{"value":1}'
    )


def settlement(job: Job, now_us: int) -> Settlement:
    return Settlement(
        id=job.id,
        token=job.token,
        outcome=RunOutcome.SUCCEEDED,
        result=b'"done"',
        attempt=1,
        worker="w1",
        host="localhost",
        started_us=now_us,
        finished_us=now_us,
    )


async def measure(folder: Path, n: int) -> Timer:
    url = f"sqlite:///{folder}/agent.db"
    agent = SqliteAgent(url, cluster="bench", name="transport-1")
    await agent.open()
    master = open_master(url, cluster="bench", clock=SystemClock())
    await master.open()
    outbox = agent.traits.shared_outbox or ""
    timer = Timer()
    now_us = time.time_ns() // 1_000
    batches = [[job(now_us) for _ in range(BATCH_IN)] for _ in range(n // BATCH_IN)]
    for batch in batches:
        await timer.time("put", agent.put(batch, NEVER_US))
    handlers = frozenset({"no-op", "other"})
    done = 0
    while True:
        jobs = await timer.time("claim", agent.claim("w1", {"default": BATCH_OUT}, handlers, BATCH_OUT, 15_000_000))
        if not jobs:
            break
        await timer.time("settle", agent.settle([settlement(each, now_us) for each in jobs]))
        await timer.time("move", master.move(agent.name, outbox, 2 * BATCH_OUT))
        done += len(jobs)
    assert done == n
    await master.close()
    await agent.close()
    return timer


def main() -> None:
    n = next((int(argument) for argument in sys.argv[1:] if argument.isdigit()), 20_000)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(100))

    if "--busy" in sys.argv:
        threading.Thread(target=spin).start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            enqueue, drain = floor.run(Path(folder), n)
            print(f"floor   enqueue {1e6 / enqueue:6.1f} us/job, drain {1e6 / drain:6.1f} us/job")
            timer = asyncio.run(measure(Path(folder), n))
        for verb, seconds in timer.spent.items():
            print(f"{verb:7} {seconds / n * 1e6:6.1f} us/job, {timer.worked[verb] / n * 1e6:6.1f} us of processor")
    finally:
        stop.set()


if __name__ == "__main__":
    main()
