"""Job control, lanes and draining on the agents that are servers: what `test_steering.py` shows on a file."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmaster import (
    ClusterBuilder,
    Enqueue,
    JobConflict,
    JobContext,
    JobHandler,
    JobNotFound,
    JobState,
    Retry,
    Runtime,
)
from jobmaster.contracts.entries import AgentState
from jobmaster.model.ids import new_id
from tests.servers import Nats
from tests.support import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

PATIENCE = 60.0
ran: list[tuple[str, Any]] = []
"""(job id, its data), as the runs began."""
ended: list[str] = []


class Hold(JobHandler):
    """Runs until it is cancelled."""

    retry = Retry.never()

    async def execute(self, job: JobContext) -> None:
        ran.append((job.id, job.data))
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(job.id)


class Pass(JobHandler):
    retry = Retry.never()

    async def execute(self, job: JobContext) -> str:
        ran.append((job.id, job.data))
        if job.data.get("fail") and job.attempt == 1:
            raise ValueError("as asked for")
        return job.lane


@pytest.fixture(params=["postgres", "mysql", "nats"])
def agent(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Where an agent is, and its options."""
    url = request.getfixturevalue(f"{request.param}_url")
    options: dict[str, Any] = {}
    if request.param == "nats":
        process = request.getfixturevalue("nats_server").process
        options = {"monitor": process.monitor} if isinstance(process, Nats) else {"accept_unsafe": True}
    ran.clear()
    ended.clear()
    return url, options


@asynccontextmanager
async def running(folder: Path, agent: tuple[str, dict[str, Any]]) -> AsyncIterator[Runtime]:
    """Agent `one` is the server, `two` a file. A worker of two slots on each, for lane `default`."""
    url, options = agent
    config = ClusterBuilder(f"c{new_id()[-12:]}").ignore_environment().add_handlers(Hold, Pass).log(level="error")
    config.use_master(f"sqlite:///{folder / 'master.db'}").shutdown(2.0)
    config.add_agent("one").use_agent(url, **options)
    config.add_agent("two").use_agent(f"sqlite:///{folder / 'two.db'}")
    for name in ("one", "two"):
        config.add_worker(f"w-{name}").agent(name).slots(2)
    async with config.build().run() as runtime:
        yield runtime


async def test_jobs_are_controlled_while_they_wait_while_they_run_and_after_they_ended(
    tmp_path: Path, agent: tuple[str, dict[str, Any]]
) -> None:
    async with running(tmp_path, agent) as runtime:
        scheduler = runtime.scheduler
        # Waiting: in a lane that nobody serves, and delayed.
        waits = await scheduler.once_now(Pass, {"n": 1}, lane="later", agent="one")
        seen = await waits.refresh()
        edited = await scheduler.update(
            waits.id, data={"n": 2}, priority="critical", when=timedelta(seconds=300), expected_version=seen.version
        )
        assert (edited.state, edited.priority.name) == (JobState.QUEUED, "CRITICAL")
        with pytest.raises(JobConflict, match="version"):
            await scheduler.cancel(waits.id, expected_version=seen.version)
        await scheduler.reschedule(waits.id, timedelta(0), expected_state="queued")
        await scheduler.update(waits.id, lane="default")
        assert await waits.result(timeout=PATIENCE) == "default"
        assert ran == [(waits.id, {"n": 2})]
        idle = await scheduler.once_after(Pass, timedelta(seconds=300), agent="one")
        assert not (await scheduler.cancel(idle.id, expected_state=["held", "queued"])).was_running
        assert (await idle.refresh()).state is JobState.CANCELLED

        # Running.
        runs = await scheduler.once_now(Hold, agent="one")
        await eventually(lambda: runs.id in {job_id for job_id, _ in ran}, PATIENCE)
        with pytest.raises(JobConflict, match="it is running"):
            await scheduler.update(runs.id, priority="low")
        with pytest.raises(JobConflict):
            await scheduler.cancel(runs.id, expected_state="queued")
        with pytest.raises(JobConflict, match="it has not ended"):
            await scheduler.delete(runs.id)
        assert (await scheduler.cancel(runs.id, expected_state="running")).was_running
        await eventually(lambda: runs.id in ended, PATIENCE, "its handler was stopped")
        assert (await runs.refresh()).state is JobState.CANCELLED

        # Ended.
        fails = await scheduler.once_now(Pass, {"fail": True}, agent="one")
        await asyncio.gather(fails.result(timeout=PATIENCE), return_exceptions=True)
        await scheduler.retry(fails.id)
        assert await fails.result(timeout=PATIENCE) == "default"
        await runtime.sync_history()
        await scheduler.delete(fails.id, expected_state="succeeded")
        with pytest.raises(JobNotFound):
            await scheduler.get(fails.id)


async def test_lanes_and_many_jobs_are_controlled(tmp_path: Path, agent: tuple[str, dict[str, Any]]) -> None:
    async with running(tmp_path, agent) as runtime:
        scheduler = runtime.scheduler
        await scheduler.lanes.pause("default", agent="one")
        jobs = await scheduler.many(Enqueue(Pass, {}, agent="one") for _ in range(30))
        far = await scheduler.once_after(Pass, timedelta(seconds=300), {}, agent="one")
        moved = await scheduler.bulk.wait((await scheduler.lanes.move("default", "later")).id)
        assert moved.changed == 31
        assert (await scheduler.lanes.get("later")).waiting == 31
        edited = await scheduler.bulk.wait((await scheduler.bulk.edit(lane="later", priority="low")).id)
        assert edited.changed == 31
        assert (await far.refresh()).priority.name == "LOW"
        some = [Enqueue(Pass, {}, lane="doomed", agent="one") for _ in range(5)]
        await scheduler.many(some)
        assert (await scheduler.bulk.wait((await scheduler.lanes.purge("doomed")).id)).changed == 5
        assert not [info for info in await scheduler.lanes.list() if info.name == "doomed" and info.waiting]
        await scheduler.bulk.wait((await scheduler.lanes.move("later", "default")).id)
        assert ran == []
        await scheduler.lanes.resume("default", agent="one")
        for job_id in jobs.ids:
            await scheduler.result(job_id, timeout=PATIENCE)
        drained = await asyncio.wait_for(scheduler.lanes.drain("default"), PATIENCE)
        assert (drained.paused, drained.running) == (True, 0)
        assert Counter(job_id for job_id, _ in ran) == Counter(jobs.ids)


async def test_an_agent_is_drained_and_every_job_runs_once(tmp_path: Path, agent: tuple[str, dict[str, Any]]) -> None:
    async with running(tmp_path, agent) as runtime:
        scheduler = runtime.scheduler
        await scheduler.lanes.pause("default", agent="one")
        jobs = await scheduler.many(Enqueue(Pass, {}, agent="one") for _ in range(60))
        delayed = await scheduler.many(Enqueue(Pass, {}, agent="one", when=timedelta(seconds=2)) for _ in range(20))
        await scheduler.topology.drain("one", to="two")

        async def is_drained() -> bool:
            return (await scheduler.topology.agent("one")).state is AgentState.DRAINED

        for job_id in [*jobs.ids, *delayed.ids]:
            await scheduler.result(job_id, timeout=PATIENCE)
        await eventually(is_drained, PATIENCE, "nothing is left on it")
        assert Counter(job_id for job_id, _ in ran) == Counter([*jobs.ids, *delayed.ids])
        await scheduler.topology.resume("one")
        await scheduler.lanes.resume("default", agent="one")
        back = await scheduler.once_now(Pass, {}, agent="one")
        assert await back.result(timeout=PATIENCE) == "default"
