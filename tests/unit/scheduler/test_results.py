"""Waiting for a job to end."""

import asyncio
from typing import Any

import pytest

from jobmaster.model.detail import RunDetail
from jobmaster.model.errors import JobCancelled, JobFailed, JobNotFound, OptionInvalid, Refused, ResultTimeout
from jobmaster.model.outcome import RunError, RunOutcome
from jobmaster.model.states import FailReason
from tests.support import eventually
from tests.unit.scheduler.kit import Kit, SendWelcome, Welcome, opened

pytestmark = pytest.mark.asyncio
NOWHERE = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


def watched(kit: Kit, agent: str = "a") -> list[frozenset[str]]:
    """The watches that are set from now on."""
    seen: list[frozenset[str]] = []
    transport = kit.transports[agent]
    watch = transport.watch

    async def noting(ids: frozenset[str], seconds: float) -> None:
        seen.append(ids)
        await watch(ids, seconds)

    transport.watch = noting
    return seen


async def test_a_result_comes_with_the_end_of_the_job_and_is_decoded() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        watches = watched(kit)
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        waiting = asyncio.create_task(handle.result(timeout=30))
        await eventually(lambda: watches)
        (job,) = await kit.claim()
        await kit.settle(job, result=b'{"x":[1,2]}')
        assert await waiting == {"x": [1, 2]}
        await scheduler.close()


async def test_a_result_is_there_for_jobs_that_ended_before_anybody_waited() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        (job,) = await kit.claim()
        await kit.settle(job, result=b"7")
        assert await handle.result(timeout=30) == 7
        await kit.sync()
        assert await handle.result(timeout=30) == 7
        assert await scheduler.handle(handle.id.upper()).result(timeout=30) == 7
        await scheduler.close()


async def test_hundreds_of_waiters_share_a_watch() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        watches = watched(kit)
        handles = [await scheduler.once_now(SendWelcome, Welcome(str(n))) for n in range(300)]
        waiting = [asyncio.create_task(handle.result(timeout=20)) for handle in handles]
        await eventually(lambda: watches and len(watches[-1]) == 300)
        await kit.succeed(await kit.claim(limit=300))
        results = await asyncio.gather(*waiting)
        assert [result["user_id"] for result in results] == [str(n) for n in range(300)]
        assert len(watches) < 50
        await scheduler.close()


async def test_a_failed_job_raises_what_the_last_run_raised() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        (job,) = await kit.claim()
        error = RunError("shop.OutOfStock", "no more\ntea", "Traceback …")
        await kit.settle(
            job,
            outcome=RunOutcome.FAILED,
            reason=FailReason.EXHAUSTED,
            error=error.line(),
            detail=RunDetail(error=error).encode(),
        )
        await kit.sync()
        with pytest.raises(JobFailed) as caught:
            await handle.result(timeout=30)
        failed = caught.value
        assert (failed.reason, failed.error_type, failed.message, failed.traceback) == (
            "exhausted",
            "shop.OutOfStock",
            "no more\ntea",
            "Traceback …",
        )
        await scheduler.close()


async def test_a_failed_job_raises_its_error_also_while_the_history_lacks_the_run() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        (job,) = await kit.claim()
        await kit.settle(job, outcome=RunOutcome.FAILED, reason=FailReason.TIMED_OUT, error="TimeoutError: 5 s")
        waiting = asyncio.create_task(handle.result(timeout=20))
        with pytest.raises(JobFailed) as caught:
            await waiting
        assert (caught.value.reason, caught.value.error_type, caught.value.message) == (
            "timed_out",
            "TimeoutError",
            "5 s",
        )
        await scheduler.close()


async def test_a_cancelled_job_raises_that() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        waiting = asyncio.create_task(handle.result(timeout=20))
        await handle.cancel()
        with pytest.raises(JobCancelled):
            await waiting
        await scheduler.close()


async def test_after_the_timeout_the_job_goes_on() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        with pytest.raises(ResultTimeout, match=r"0\.01 s"):
            await handle.result(timeout=0.01)
        (job,) = await kit.claim()
        await kit.settle(job, result=b"1")
        assert await handle.result(timeout=30) == 1
        await scheduler.close()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5", True])
async def test_a_timeout_that_is_none_is_refused(seconds: Any) -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match="timeout"):
            await kit.scheduler().result(NOWHERE, seconds)


async def test_nobody_waits_for_a_job_that_does_not_exist() -> None:
    async with opened() as kit:
        with pytest.raises(JobNotFound):
            await kit.scheduler().result(NOWHERE, 5)


async def test_a_waiter_outlives_an_agent_that_does_not_answer_for_a_while() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        transport = kit.transports["a"]
        find = transport.find
        failures = 0

        async def failing(ids: list[str]) -> Any:
            nonlocal failures
            if failures < 3:
                failures += 1
                raise Refused("away")
            return await find(ids)

        transport.find = failing
        waiting = asyncio.create_task(handle.result(timeout=20))
        (job,) = await kit.claim()
        await kit.settle(job, result=b"1")
        assert await waiting == 1
        assert failures == 3
        await scheduler.close()


async def test_closing_the_scheduler_cancels_those_who_wait() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        watches = watched(kit)
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        waiting = asyncio.create_task(handle.result())
        await eventually(lambda: watches)
        await scheduler.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
