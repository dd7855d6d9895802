"""The standalone cluster on SQLite, whole: bulk enqueue, drain with the history, idle latency, idle CPU, memory.

    python -m benchmarks.standalone [--n 20000,100000] [--rounds 3] [--profile] [--idle]

Every round runs in a process of its own, on a fresh file.
"""

import argparse
import asyncio
import cProfile
import json
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler
from jobmaster.cli.eventloop import run_async
from jobmaster.enqueue import Enqueue
from jobmaster.model.states import JobState

SLOTS = 100


class NoOp(JobHandler):
    async def execute(self, job: JobContext) -> None:
        return None


class Stamp(JobHandler):
    """Tells when it began."""

    began = 0.0

    async def execute(self, job: JobContext) -> None:
        Stamp.began = time.perf_counter()


def build(path: Path, workers: int = 1) -> Cluster:
    config = ClusterBuilder("bench").add_handlers(NoOp, Stamp).log(level="warning")
    config.use_sqlite_for_master(path)
    config.add_agent("standalone").use_sqlite_for_agent(path)
    for _ in range(workers):
        config.add_worker().agent("standalone").slots(SLOTS).lanes("default", "second", "third")
    return config.build()


async def enqueue(cluster: Cluster, n: int) -> float:
    """Jobs per second."""
    async with cluster.connect() as scheduler:
        began = time.perf_counter()
        await scheduler.many(Enqueue(NoOp) for _ in range(n))
        return n / (time.perf_counter() - began)


async def drain(cluster: Cluster, n: int) -> float:
    """Jobs per second, from the worker's start until the last job is in the history."""
    began = time.perf_counter()
    async with cluster.run() as runtime:
        while True:
            lanes = await runtime.agents["standalone"].stats()
            if not sum(lane.ready + lane.leased + lane.delayed for lane in lanes):
                break
            await asyncio.sleep(0.1)
        while await runtime.agents["standalone"].changes(1):  # noqa: ASYNC110 - from outside there is no event
            await asyncio.sleep(0.002)
        elapsed = time.perf_counter() - began
        done = sum(c.count for c in await runtime.master.counts(n + 1) if c.state is JobState.SUCCEEDED)
        assert done == n, (done, n)
    return n / elapsed


async def latency(cluster: Cluster, n: int) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds, one job at a time: of the call, from the call to the handler's first line, and from there (it does
    nothing) to the result in the caller's hands."""
    calls, values, results = [], [], []
    async with cluster.run() as runtime:
        for _ in range(n):
            began = time.perf_counter()
            job = await runtime.scheduler.once_now(Stamp)
            calls.append((time.perf_counter() - began) * 1e3)
            await job.result(timeout=10)
            results.append((time.perf_counter() - Stamp.began) * 1e3)
            values.append((Stamp.began - began) * 1e3)
            await asyncio.sleep(0.01)
    return sorted(calls), sorted(values), sorted(results)


async def idle(cluster: Cluster, seconds: float) -> float:
    """Share of one core that an idle cluster with one schedule a second takes."""
    async with cluster.run() as runtime:
        await runtime.scheduler.recurring(NoOp, timedelta(seconds=1), key="tick")
        await asyncio.sleep(3)
        before = time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - before) / seconds


def measure(what: str, n: int, profile: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cluster = build(Path(folder) / "bench.db")
        result: dict[str, Any] = {"what": what, "n": n}
        profiler = cProfile.Profile() if profile else nullcontext()
        if what == "drain":
            result["enqueue_per_s"] = run_async(enqueue(cluster, n))
            with profiler:
                result["drain_per_s"] = run_async(drain(cluster, n))
        elif what == "latency":
            calls, values, results = run_async(latency(cluster, n))
            result |= {"p50_ms": values[n // 2], "p99_ms": values[int(n * 0.99)]}
            result |= {"enqueue_p50_ms": calls[n // 2], "result_p50_ms": results[n // 2]}
        else:
            with profiler:
                result["idle_share"] = run_async(idle(cluster, float(n)))
        result["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if isinstance(profiler, cProfile.Profile):
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(45)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", default="20000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--idle", type=int, default=0, help="seconds of idling to measure")
    parser.add_argument("--one", help="one measurement, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, int(options.n), options.profile)))
        return
    plan = [("drain", int(n)) for n in options.n.split(",")] + [("latency", 300)]
    plan += [("idle", options.idle)] if options.idle else []
    for what, n in plan:
        for _ in range(options.rounds if what == "drain" else 1):
            command = [sys.executable, "-m", "benchmarks.standalone", "--one", what, "--n", str(n)]
            print(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout, end="")


if __name__ == "__main__":
    main()
