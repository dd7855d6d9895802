"""Data of another version than the code here knows: older ones are read through the handler, newer ones left alone."""

from typing import Any

import pytest

from jobmaster.model.policy import Policy
from jobmaster.model.states import JobState
from jobmaster.worker.context import JobContext
from jobmaster.worker.newer import PAUSE_SECONDS, PUT_OFF_SECONDS
from tests.support import eventually
from tests.unit.worker.rig import Rig

pytestmark = pytest.mark.asyncio

NEWER = Policy(data_version=2)
ran: list[Any] = []


async def work(job: JobContext[Any]) -> None:
    ran.append(job.data)


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


async def test_a_newer_job_is_given_back_as_it_came_and_its_handler_not_claimed_for_a_while() -> None:
    async with Rig({"work": work, "other": work}) as rig:
        job_id = await rig.put("work", 1, policy=NEWER)
        await eventually(lambda: rig.agent.calls["release"])
        job = await rig.job(job_id)
        assert (job.state, job.attempts, job.interrupts, job.started_us) == (JobState.QUEUED, 0, 0, None)
        assert await rig.runs(job_id) == []
        assert await rig.jobs_delayed() == 0
        # Others go on; this handler's do not, whatever their version.
        mine, others = await rig.put("work", 2), await rig.put("other", 3)
        rig.worker.wake()
        await rig.ended(others)
        assert isinstance(rig.worker._intake._newer.claimable(), frozenset)
        assert ran == [3]
        assert (await rig.job(mine)).state is JobState.QUEUED


async def test_jobs_that_nobody_takes_are_put_off_so_that_others_of_their_handler_run() -> None:
    async with Rig({"work": work}, slots=2, prefetch=0) as rig:
        stuck = [await rig.put("work", number, policy=NEWER) for number in range(4)]
        mine = await rig.put("work", "mine")

        async def mine_ran() -> bool:
            rig.advance(PAUSE_SECONDS)
            rig.worker.wake()
            return (await rig.job(mine)).terminal

        await eventually(mine_ran, within=30)
        jobs = [await rig.job(job_id) for job_id in stuck]
        assert {(job.state, job.attempts, job.snoozes, job.crash_count) for job in jobs} == {(JobState.QUEUED, 0, 0, 0)}
        assert any(job.due_us > job.original_due_us + (PUT_OFF_SECONDS - 1) * 1e6 for job in jobs)
        assert ran == ["mine"]


async def test_an_older_job_is_read_through_its_handler() -> None:
    rig = Rig({"work": work})
    handler = rig.functions.get("work")
    assert handler is not None
    handler.version = 3
    async with rig:
        await rig.ended(await rig.put("work", 1, policy=NEWER))
        await rig.ended(await rig.put("work", 2, policy=Policy(data_version=3)))
        assert ran == [{"upcast from": 2, "data": 1}, 2]


async def test_data_that_cannot_be_upcast_end_the_job_as_undecodable() -> None:
    rig = Rig({"work": work})
    handler = rig.functions.get("work")
    assert handler is not None

    def broken(raw: bytes, version: int, /) -> Any:
        raise KeyError("user")

    handler.version, handler.read = 2, broken  # type: ignore[method-assign]
    async with rig:
        job = await rig.ended(await rig.put("work", 1))
        assert (job.state, job.reason) == (JobState.FAILED, "undecodable")
        assert "KeyError" in (job.error or "")
