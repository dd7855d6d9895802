"""Cancel, reschedule, retry and delete."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmaster.contracts.values import Release, SignalKind
from jobmaster.handle import JobHandle
from jobmaster.model.errors import AgentUnreachable, JobConflict, JobNotFound, MasterUnavailable, NameInvalid
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason, JobState
from jobmaster.scheduler import Scheduler
from jobmaster.views import CancelOutcome
from tests.unit.scheduler.kit import Kit, SendWelcome, Welcome, opened

pytestmark = pytest.mark.asyncio
NOWHERE = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


async def failed_job(kit: Kit, scheduler: Scheduler) -> JobHandle:
    handle = await scheduler.once_now(SendWelcome, Welcome("u"))
    (job,) = await kit.claim()
    await kit.settle(job, outcome=RunOutcome.FAILED, reason=FailReason.EXHAUSTED, error="ValueError: x")
    return handle


async def test_a_waiting_job_is_cancelled_where_it_is() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        queued = await scheduler.once_now(SendWelcome, Welcome("u"))
        held = await scheduler.once_after(SendWelcome, timedelta(days=1), Welcome("u"))
        for handle in (queued, held):
            result = await handle.cancel()
            assert (result.outcome, result.state, result.was_running) == (
                CancelOutcome.CANCELLED,
                JobState.CANCELLED,
                False,
            )
            assert (await handle.refresh()).state is JobState.CANCELLED
        assert await kit.claim() == []


async def test_a_running_job_is_fenced_at_once_and_its_worker_is_told() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        (job,) = await kit.claim()
        result = await handle.cancel()
        assert (result.cancelled, result.was_running) == (True, True)
        (signal,) = await kit.transports["a"].signals("worker-1")
        assert (signal.kind, signal.job_id) == (SignalKind.CANCEL, handle.id)
        await kit.settle(job, result=b"1")
        await kit.sync()
        assert (await handle.refresh()).state is JobState.CANCELLED


async def test_cancelling_an_ended_job_says_how_it_ended() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await failed_job(kit, scheduler)
        for _ in range(2):
            result = await handle.cancel()
            assert (result.outcome, result.state) == (CancelOutcome.ALREADY_ENDED, JobState.FAILED)
            await kit.sync()


async def test_cancelling_twice_is_no_error() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"))
        assert (await handle.cancel()).cancelled
        assert (await handle.cancel()).outcome is CancelOutcome.ALREADY_ENDED


async def test_a_job_that_is_being_handed_over_is_cancelled_before_it_arrives() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        put = kit.transports["a"].put

        async def lost(*_: Any) -> Any:
            raise AgentUnreachable("a", "away")

        kit.transports["a"].put = lost
        handle = await scheduler.once_now(SendWelcome, Welcome("u"), durability="master")
        assert (await handle.refresh()).state is JobState.DISPATCHING
        kit.transports["a"].put = put
        assert (await handle.cancel()).cancelled
        # The late put finds the tombstone.
        (job,) = await kit.master.get([handle.id])
        await put([job], kit.clock.wall_us() + 1_000_000)
        assert await kit.claim() == []
        await kit.sync()
        assert (await handle.refresh()).state is JobState.CANCELLED


@pytest.mark.parametrize("verb", ["get", "cancel", "reschedule", "retry", "delete"])
async def test_what_is_nowhere_is_not_found_and_what_is_no_id_is_refused(verb: str) -> None:
    async with opened() as kit:
        method = getattr(kit.scheduler(), verb)
        more = (timedelta(0),) if verb == "reschedule" else ()
        with pytest.raises(JobNotFound, match=NOWHERE):
            await method(NOWHERE, *more)
        with pytest.raises(NameInvalid):
            await method("42", *more)


@pytest.mark.parametrize("verb", ["get", "cancel", "reschedule", "retry", "delete"])
async def test_an_agent_that_does_not_answer_makes_the_answer_unknown_not_negative(verb: str) -> None:
    async with opened(("a", "b")) as kit:

        async def away(*_: Any) -> Any:
            raise AgentUnreachable("b", "connection refused")

        kit.transports["b"].find = away
        method = getattr(kit.scheduler(), verb)
        more = (timedelta(0),) if verb == "reschedule" else ()
        with pytest.raises(AgentUnreachable, match=r"'b'.*connection refused.*unknown"):
            await method(NOWHERE, *more)


async def test_a_job_is_shown_as_its_agent_has_it_and_not_as_the_masters_copy_says() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"), durability="master")
        (job,) = await kit.claim()
        assert (await handle.refresh()).state is JobState.RUNNING
        await kit.settle(job, result=b"1")
        info = await handle.refresh()
        assert (info.state, info.result) == (JobState.SUCCEEDED, 1)


async def test_a_job_on_an_agent_is_found_and_cancelled_while_the_master_is_away() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"))

        async def away(*_: Any) -> Any:
            raise MasterUnavailable("connection refused")

        kit.master.get = kit.master.runs = away
        scheduler = kit.scheduler()
        assert (await scheduler.get(handle.id)).state is JobState.QUEUED
        assert (await scheduler.cancel(handle.id)).cancelled
        with pytest.raises(MasterUnavailable):
            await scheduler.get(NOWHERE)


async def test_a_held_job_gets_another_time_on_the_master() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_after(SendWelcome, timedelta(days=1), Welcome("u"))
        when = datetime.fromtimestamp(kit.clock.wall_us() / 1e6 + 7_200, UTC)
        assert (await kit.scheduler().reschedule(handle.id, when)).due_at == when
        info = await handle.refresh()
        assert (info.state, info.due_at) == (JobState.HELD, when)
        assert info.original_due_at != when


async def test_a_queued_job_gets_another_time_on_its_agent() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"))
        info = await kit.scheduler().reschedule(handle.id, timedelta(minutes=5))
        assert (info.state, info.version) == (JobState.QUEUED, (await handle.refresh()).version)
        assert await kit.claim() == []
        await kit.scheduler().reschedule(handle.id, timedelta(0))
        assert [job.id for job in await kit.claim()] == [handle.id]


async def test_a_queued_job_rescheduled_beyond_the_threshold_goes_back_to_the_master() -> None:
    async with opened() as kit:
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"))
        await kit.scheduler().reschedule(handle.id, timedelta(days=2))
        await kit.sync()
        (job,) = await kit.master.get([handle.id])
        assert (job.state, job.due_us) == (JobState.HELD, kit.clock.wall_us() + 2 * 86_400_000_000)
        assert await kit.transports["a"].stats() == [] or (await kit.scheduler().counts()).total(JobState.QUEUED) == 0


async def test_a_reschedule_repeats_itself_where_another_change_came_first() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        amend = kit.transports["a"].amend
        stolen = False

        async def late(items: Any) -> Any:
            nonlocal stolen
            if not stolen:
                stolen = True
                await scheduler.reschedule(handle.id, timedelta(minutes=1))
            return await amend(items)

        kit.transports["a"].amend = late
        info = await scheduler.reschedule(handle.id, timedelta(minutes=2))
        assert info.due_at == (await handle.refresh()).due_at
        assert info.version == 3


async def test_a_job_is_not_put_off_beyond_its_expiry() -> None:
    async with opened() as kit:
        expires = datetime.fromtimestamp(kit.clock.wall_us() / 1e6 + 60, UTC)
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"), expires_at=expires)
        with pytest.raises(JobConflict, match="expire"):
            await kit.scheduler().reschedule(handle.id, timedelta(minutes=2))


async def test_running_and_ended_jobs_have_no_time_to_change() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        (job,) = await kit.claim()
        with pytest.raises(JobConflict, match="running"):
            await scheduler.reschedule(handle.id, timedelta(minutes=1))
        await kit.settle(job)
        with pytest.raises(JobConflict, match="succeeded"):
            await scheduler.reschedule(handle.id, timedelta(minutes=1))


async def test_a_failed_job_is_retried_at_once_with_a_higher_epoch() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await failed_job(kit, scheduler)
        await kit.sync()
        assert (await scheduler.retry(handle.id)).state is JobState.QUEUED
        (job,) = await kit.claim()
        assert (job.id, job.epoch, job.attempts) == (handle.id, 2, 1)
        await kit.settle(job, result=b"1")
        await kit.sync()
        info = await handle.refresh()
        assert (info.state, len(info.runs)) == (JobState.SUCCEEDED, 2)


async def test_a_fresh_retry_starts_the_counters_anew() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await failed_job(kit, scheduler)
        await kit.sync()
        await scheduler.retry(handle.id, fresh=True)
        (job,) = await kit.claim()
        assert job.attempts == 0


async def test_only_what_failed_or_was_cancelled_is_retried() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("u"))
        with pytest.raises(JobConflict, match="queued"):
            await scheduler.retry(handle.id)
        (job,) = await kit.claim()
        await kit.settle(job)
        with pytest.raises(JobConflict, match="succeeded"):
            await scheduler.retry(handle.id)


async def test_a_retry_while_the_agent_is_away_is_left_to_the_hand_off() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await failed_job(kit, scheduler)
        await kit.sync()

        async def away(*_: Any) -> Any:
            raise AgentUnreachable("a", "away")

        kit.transports["a"].put = away
        assert (await scheduler.retry(handle.id)).state in (JobState.HELD, JobState.DISPATCHING)
        assert kit.woken >= 1


async def test_an_ended_job_is_deleted_and_a_living_one_is_not() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await failed_job(kit, scheduler)
        await kit.sync()
        living = await scheduler.once_now(SendWelcome, Welcome("u"))
        await scheduler.delete(handle.id)
        with pytest.raises(JobNotFound):
            await handle.refresh()
        with pytest.raises(JobConflict, match="queued"):
            await scheduler.delete(living.id)


async def test_a_run_that_is_over_by_the_time_it_is_to_be_cancelled_is_no_reason_to_cancel_what_follows() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_now(SendWelcome, Welcome("x"))
        [running] = await kit.claim()
        revoke = kit.transports["a"].revoke

        async def late(items: Any) -> Any:
            # Its run ends, and it waits for the next one.
            await kit.transports["a"].release([Release(running.id, running.token)])
            return await revoke(items)

        kit.transports["a"].revoke = late
        with pytest.raises(JobConflict, match="it is queued, not running"):
            await scheduler.cancel(handle.id, expected_state="running")
        assert (await handle.refresh()).state is JobState.QUEUED


async def test_an_end_that_was_another_one_when_it_was_looked_at_is_not_changed() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handle = await scheduler.once_after(SendWelcome, timedelta(days=1), Welcome("x"))
        await handle.cancel()
        seen = (await handle.refresh()).version
        for name in ("redrive", "delete"):
            verb = getattr(kit.master, name)

            async def late(ids: Any, *rest: Any, verb: Any = verb, name: str = name) -> Any:
                # Somebody else has it run again, and cancels that.
                setattr(kit.master, name, verb)
                await kit.master.redrive(ids, 5, False)
                await kit.master.cancel(ids)
                return await verb(ids, *rest)

            setattr(kit.master, name, late)
            call = scheduler.retry if name == "redrive" else scheduler.delete
            with pytest.raises(JobConflict, match=f"not {seen}"):
                await call(handle.id, expected_version=seen)
            seen = (await handle.refresh()).version
        assert (await handle.refresh()).state is JobState.CANCELLED
