"""Whoever drains an agent is killed on the way: another goes on, and each job runs once, on the agent that stays."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jobmaster import Cluster, ClusterBuilder, Enqueue, JobContext, JobHandler, JobState, Runtime
from jobmaster.contracts.entries import AgentState
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]
DRAINING = ("drain.closed", "drain.withdrawn")
"""The failpoints that only a drain comes by."""
CRASHED = 137
JOBS = 20

runs: Counter[str] = Counter()


class Count(JobHandler):
    async def execute(self, job: JobContext) -> None:
        runs[job.id] += 1


def cluster(folder: str) -> Cluster:
    """Two agents, of which a worker serves the second."""
    config = ClusterBuilder("drains").ignore_environment().add_handlers(Count)
    config.use_master(f"sqlite:///{folder}/master.db").log(level="error")
    for name in ("one", "two"):
        config.add_agent(name).use_agent(f"sqlite:///{folder}/{name}.db")
    config.add_worker().agent("two")
    return config.build()


DRAIN = """
import asyncio, sys
from tests.system.test_drain_crashes import cluster
async def main():
    async with cluster(sys.argv[1]).without_workers().run() as runtime:
        await runtime.scheduler.topology.drain("one")
        await runtime.stop_requested.wait()
asyncio.run(main())
"""


async def drained(runtime: Runtime) -> bool:
    return any(entry.name == "one" and entry.state is AgentState.DRAINED for entry in await runtime.master.agents())


@pytest.mark.asyncio
@pytest.mark.parametrize("point", DRAINING)
async def test_whoever_dies_while_draining_is_followed_by_another(tmp_path: Path, point: str) -> None:
    runs.clear()
    folder = str(tmp_path)
    async with cluster(folder).connect() as scheduler:
        jobs = await scheduler.many(Enqueue(Count, agent="one") for _ in range(JOBS))
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", DRAIN, folder],
        cwd=ROOT,
        env={**os.environ, "JOBMASTER_FAILPOINTS": f"{point}:crash"},
        timeout=45,
    )
    assert died.returncode == CRASHED

    async with cluster(folder).run() as runtime:
        for job_id in jobs.ids:
            await runtime.scheduler.result(job_id, timeout=45)
        await eventually(lambda: drained(runtime))
        found = [await runtime.scheduler.get(job_id) for job_id in jobs.ids]
    assert Counter((job.state, job.agent) for job in found) == {(JobState.SUCCEEDED, "two"): JOBS}
    assert dict(runs) == dict.fromkeys(jobs.ids, 1)
