"""A worker on a real SQLite file: what others see of its runs, and how soon."""

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler
from jobmaster.model.errors import JobCancelled


class Stage:
    """What a test and the handler it runs tell each other."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.report = asyncio.Event()
        self.ended = asyncio.Event()
        self.leave = asyncio.Event()


stage = Stage()
ran: list[int] = []


class Report(JobHandler):
    async def execute(self, job: JobContext) -> None:
        stage.entered.set()
        try:
            await stage.report.wait()
            job.progress(70, "most of it")
            await stage.leave.wait()
        finally:
            stage.ended.set()


class Quick(JobHandler):
    async def execute(self, job: JobContext) -> int:
        ran.append(int(job.data["number"]))
        return ran[-1]


class Block(JobHandler):
    async def execute(self, job: JobContext) -> bool:
        time.sleep(3.0)  # noqa: ASYNC251 - the handler's work: it blocks the loop for longer than its lease lasts
        return job.lease_valid


@pytest.fixture(autouse=True)
def _fresh_stage() -> None:
    global stage
    stage = Stage()


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    config = ClusterBuilder("system").add_handlers(Report, Quick, Block)
    config.use_sqlite_for_master(tmp_path / "jobs.db")
    config.add_agent("standalone").use_sqlite_for_agent(tmp_path / "jobs.db")
    config.add_worker().agent("standalone").slots(10)
    config.lease(ttl=2.4, beat=0.4, margin=0.2)
    return config.build()


LOOK = """
import asyncio, json, sys, time
from jobmaster import ClusterBuilder

async def main(path, job_id):
    config = ClusterBuilder("system")
    config.use_sqlite_for_master(path)
    config.add_agent("standalone").use_sqlite_for_agent(path)
    async with config.build().connect() as scheduler:
        print("looking", flush=True)
        while (job := await scheduler.get(job_id)).progress is None:
            await asyncio.sleep(0.02)  # the handler's work: a program of its own, it only asks
        print(json.dumps([job.progress, job.progress_note, time.monotonic()]), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.alone
@pytest.mark.asyncio
async def test_progress_is_readable_from_another_process_within_a_second(cluster: Cluster, tmp_path: Path) -> None:
    async with cluster.run() as runtime:
        job = await runtime.scheduler.once_now(Report)
        await asyncio.wait_for(stage.entered.wait(), 30)
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", LOOK, str(tmp_path / "jobs.db"), job.id, stdout=asyncio.subprocess.PIPE
        )
        assert other.stdout is not None
        async with asyncio.timeout(30):
            while b"looking" not in await other.stdout.readline():
                continue
            reported = time.monotonic()
            stage.report.set()
            percent, note, seen = json.loads(await other.stdout.readline())
            await other.wait()
        stage.leave.set()

        assert (percent, note) == (70, "most of it")
        assert seen - reported < 1.0


@pytest.mark.alone
@pytest.mark.asyncio
async def test_a_cancel_reaches_the_handler_within_a_second(cluster: Cluster) -> None:
    async with cluster.run() as runtime:
        job = await runtime.scheduler.once_now(Report)
        await asyncio.wait_for(stage.entered.wait(), 30)
        began = time.monotonic()
        await job.cancel()
        await asyncio.wait_for(stage.ended.wait(), 30)
        elapsed = time.monotonic() - began

        with pytest.raises(JobCancelled):
            await job.result(timeout=30)
        assert elapsed < 1.0


@pytest.mark.asyncio
async def test_many_jobs_run_once_each(cluster: Cluster) -> None:
    ran.clear()
    async with cluster.run() as runtime:
        jobs = [await runtime.scheduler.once_now(Quick, {"number": number}) for number in range(200)]

        assert [await job.result(timeout=30) for job in jobs] == list(range(200))
        assert sorted(ran) == list(range(200))


@pytest.mark.asyncio
async def test_a_handler_that_blocks_the_loop_keeps_its_lease(cluster: Cluster) -> None:
    async with cluster.run() as runtime:
        job = await runtime.scheduler.once_now(Block)

        assert await job.result(timeout=30) is True
        assert (await job.refresh()).attempts == 0
