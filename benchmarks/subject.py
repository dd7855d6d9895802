"""JobMaster as the subject of a measurement, on stores given by URL, in a process of its own.

    python -m benchmarks.subject '{"what": "drain", "n": 5000, "master": URL, "agent": URL, "profile": false}'

prints one line of JSON. A drain's clock runs from the start of the worker, stores open, until every job and run is in
the master's history, confirmed to the agent; that is asked of the stores only once every handler has run.
"""

import asyncio
import cProfile
import json
import pstats
import resource
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from mmap import mmap
from typing import Any

from benchmarks.postgres_server import Costs, costs
from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler
from jobmaster.cli.eventloop import run_async
from jobmaster.enqueue import Enqueue
from jobmaster.model.states import JobState
from jobmaster.runtime import Runtime

AGENT = "transport-1"
LANES = ("default", "second", "third")
SLOTS = 100
PATIENCE = 120.0
WARM_UP = 10


class NoOp(JobHandler):
    """Counts, and tells when as many ran as were expected."""

    ran = 0
    target = 0
    last = 0.0
    reached = asyncio.Event()

    async def execute(self, job: JobContext) -> None:
        NoOp.last = time.perf_counter()
        NoOp.ran += 1
        if NoOp.ran == NoOp.target:
            NoOp.reached.set()


class Tally(JobHandler):
    """Counts by lane in memory that several processes share: one row of counters a process."""

    shared: mmap
    row = 0

    async def execute(self, job: JobContext) -> None:
        at = 8 * (Tally.row * len(LANES) + LANES.index(job.lane))
        struct.pack_into("q", Tally.shared, at, struct.unpack_from("q", Tally.shared, at)[0] + 1)


def build(master: str, agent: str, options: dict[str, Any]) -> Cluster:
    """No worker of its own: the measurement says when one starts. `options` are the agent's."""
    config = ClusterBuilder("bench").add_handlers(NoOp, Tally).log(level="warning")
    config.use_master(master)
    config.add_agent(AGENT).use_agent(agent, **options)
    return config.build()


async def all_run(n: int) -> None:
    """Return when n handlers ran since the process began; raises when none runs any more."""
    NoOp.target = n
    NoOp.reached.clear()
    while NoOp.ran < n:
        before = NoOp.ran
        try:
            await asyncio.wait_for(NoOp.reached.wait(), PATIENCE)
        except TimeoutError:
            if NoOp.ran == before:
                raise TimeoutError(f"stuck at {before:,} of {n:,} for {PATIENCE} s") from None


async def audited(runtime: Runtime) -> None:
    """Return when every outcome is settled, and every record of the agent is in the history and confirmed."""
    while sum(lane.ready + lane.leased for lane in await runtime.agents[AGENT].stats()):  # noqa: ASYNC110 - as below
        await asyncio.sleep(0.002)
    await confirmed(runtime)


async def confirmed(runtime: Runtime) -> None:
    """Return when the agent keeps no record the history has not got."""
    while await runtime.agents[AGENT].changes(1):  # noqa: ASYNC110 - from outside there is no event
        await asyncio.sleep(0.002)


async def succeeded(runtime: Runtime, cap: int) -> int:
    return sum(each.count for each in await runtime.master.counts(cap) if each.state is JobState.SUCCEEDED)


async def enqueue(runtime: Runtime, n: int, handler: type[JobHandler[Any]] = NoOp) -> float:
    """Jobs per second, by the public bulk call."""
    began = time.perf_counter()
    await runtime.scheduler.many(Enqueue(handler) for _ in range(n))
    return n / (time.perf_counter() - began)


async def drained(runtime: Runtime, n: int) -> float:
    """Jobs per second of one fresh worker on what is queued, which are n jobs; the worker is stopped again."""
    before = NoOp.ran
    began = time.perf_counter()
    worker = await runtime.add_worker(agent=AGENT, slots=SLOTS)
    await all_run(before + n)
    await audited(runtime)
    elapsed = time.perf_counter() - began
    await worker.stop()
    return n / elapsed


async def drain(cluster: Cluster, n: int, url: str | None) -> dict[str, Any]:
    """Bulk enqueue and drain, with what each cost the server where that can be asked."""
    found: dict[str, Any] = {}
    async with cluster.connect():
        pass  # the schema
    async with measured(url, found, "enqueue", n), cluster.run() as runtime:
        found["enqueue_per_s"] = await enqueue(runtime, n)
    async with measured(url, found, "drain", n), cluster.run() as runtime:
        found["drain_per_s"] = await drained(runtime, n)
        done = await succeeded(runtime, n + 1)
        assert done == n, (done, n)
    return found


@asynccontextmanager
async def measured(url: str | None, found: dict[str, Any], name: str, n: int) -> AsyncIterator[None]:
    """What the block cost the server, per job, goes into `found`."""
    before: Costs | None = await costs(url) if url else None
    yield
    if url and before is not None:
        # A backend reports when it ends, and the client does not wait for that.
        await asyncio.sleep(0.5)
        found[f"{name}_costs"] = (await costs(url) - before).per(n)


async def latency(cluster: Cluster, n: int) -> dict[str, Any]:
    """Milliseconds, one job at a time on an idle worker: of the call, and from the call to the handler's first line."""
    calls, starts = [], []
    async with cluster.run() as runtime:
        await runtime.add_worker(agent=AGENT, slots=SLOTS)
        for number in range(n + WARM_UP):
            began = time.perf_counter()
            await runtime.scheduler.once_now(NoOp)
            called = time.perf_counter()
            await all_run(number + 1)
            if number >= WARM_UP:
                calls.append((called - began) * 1e3)
                starts.append((NoOp.last - began) * 1e3)
            await asyncio.sleep(0.02)
    calls.sort()
    starts.sort()
    return {"enqueue_p50_ms": calls[n // 2], "p50_ms": starts[n // 2], "p99_ms": starts[int(n * 0.99)]}


async def single(cluster: Cluster, n: int) -> dict[str, Any]:
    """Milliseconds of one `once_now` each, in a program that only enqueues."""
    calls = []
    async with cluster.connect() as scheduler:
        for number in range(n + WARM_UP):
            began = time.perf_counter()
            await scheduler.once_now(NoOp)
            if number >= WARM_UP:
                calls.append((time.perf_counter() - began) * 1e3)
    return {"p50_ms": sorted(calls)[n // 2]}


async def idle(cluster: Cluster, seconds: int) -> dict[str, Any]:
    """Share of one core that an idle process with a worker and one schedule a second takes."""
    async with cluster.run() as runtime:
        await runtime.add_worker(agent=AGENT, slots=SLOTS, lanes=LANES)
        await runtime.scheduler.recurring(NoOp, timedelta(seconds=1), key="tick")
        await asyncio.sleep(3)
        before = time.process_time()
        await asyncio.sleep(seconds)
        return {"idle_share": (time.process_time() - before) / seconds}


async def rounds(cluster: Cluster, n: int, seconds: float) -> dict[str, Any]:
    """Enqueue and drain n jobs over and over for that long: the rate of each round."""
    rates: list[float] = []
    ends = time.monotonic() + seconds
    async with cluster.run() as runtime:
        while time.monotonic() < ends or not rates:
            await enqueue(runtime, n)
            rates.append(await drained(runtime, n))
    return {"rates": rates}


async def drain_there(cluster: Cluster, n: int) -> dict[str, Any]:
    """The rate of one fresh worker over the first n jobs of a backlog that is there already, audit counted."""
    async with cluster.run() as runtime:
        began = time.perf_counter()
        worker = await runtime.add_worker(agent=AGENT, slots=SLOTS)
        await all_run(n)
        await worker.stop()
        await confirmed(runtime)
        return {"drain_per_s": NoOp.ran / (time.perf_counter() - began)}


async def seed(cluster: Cluster, n: int) -> dict[str, Any]:
    """One job in the history, one ready, one delayed: patterns for `benchmarks.filling`; or n ready ones."""
    async with cluster.run() as runtime:
        await runtime.scheduler.once_now(NoOp)
        await drained(runtime, 1)
        await runtime.scheduler.once_after(NoOp, timedelta(minutes=9))
        await enqueue(runtime, n)
    return {}


async def spread(cluster: Cluster, n: int) -> dict[str, Any]:
    """n jobs that are counted by lane, over all lanes in turn."""
    async with cluster.connect() as scheduler:
        await scheduler.many(Enqueue(Tally, lane=LANES[number % len(LANES)]) for number in range(n))
    return {}


async def work(cluster: Cluster, path: str, row: int) -> dict[str, Any]:
    """A worker on all lanes, from the first line of the standard input to its end, with counters in that file."""
    loop = asyncio.get_running_loop()
    with open(path, "r+b") as file:  # noqa: ASYNC230 - before anything runs
        Tally.shared, Tally.row = mmap(file.fileno(), 0), row
        async with cluster.run() as runtime:
            print("open", flush=True)
            await loop.run_in_executor(None, sys.stdin.readline)
            worker = await runtime.add_worker(agent=AGENT, slots=SLOTS, lanes=LANES)
            await loop.run_in_executor(None, sys.stdin.read)
            await worker.stop()
    return {}


def measure(order: dict[str, Any]) -> dict[str, Any]:
    cluster = build(order["master"], order["agent"], order.get("options", {}))
    n, url = order["n"], order["agent"] if order.get("costs") else None
    plan: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "drain": lambda: drain(cluster, n, url),
        "latency": lambda: latency(cluster, n),
        "single": lambda: single(cluster, n),
        "idle": lambda: idle(cluster, n),
        "rounds": lambda: rounds(cluster, n, order["seconds"]),
        "there": lambda: drain_there(cluster, n),
        "seed": lambda: seed(cluster, n),
        "spread": lambda: spread(cluster, n),
        "work": lambda: work(cluster, order["path"], order["row"]),
    }
    profiler = cProfile.Profile() if order.get("profile") else nullcontext()

    async def run() -> dict[str, Any]:
        return await plan[order["what"]]()

    with profiler:
        found = run_async(run())
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if isinstance(profiler, cProfile.Profile):
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
