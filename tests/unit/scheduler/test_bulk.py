"""Bulk changes: what they mean, what they leave alone, and how they go on."""

from datetime import timedelta
from typing import Any

import pytest

from jobmaster.contracts.operating import OperationState
from jobmaster.coordination.operator import Operator
from jobmaster.enqueue import Enqueue
from jobmaster.model.errors import JobConflict, OperationNotFound, OptionInvalid
from jobmaster.model.ids import new_id
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.priority import Priority
from jobmaster.model.states import FailReason, JobState
from jobmaster.scheduler import Scheduler
from jobmaster.store_time import StoreTime
from tests.unit.scheduler.kit import Kit, Plain, SendWelcome, Welcome, opened

pytestmark = pytest.mark.asyncio


def operator(kit: Kit, scheduler: Scheduler, node: str = "node-1") -> Operator:
    return Operator(
        kit.master,
        scheduler.batches,
        master_time=StoreTime(kit.clock, kit.master.store_now_us),
        node=node,
        clock=kit.clock,
    )


async def carried_out(kit: Kit, scheduler: Scheduler, operation_id: str) -> Any:
    duty = operator(kit, scheduler)
    while (found := await scheduler.bulk.get(operation_id)).state is OperationState.RUNNING:
        await duty.run()
        kit.clock.advance(1)
    return found


async def _carried_out_and_died(kit: Kit, scheduler: Scheduler, operation_id: str) -> None:
    """One page by a process that dies right after it, before it is noted; then its term runs out."""
    duty = operator(kit, scheduler, "node-2")
    carry_out = scheduler.batches.carry_out

    async def half(operation: Any, jobs: Any, now_us: int) -> int:
        await carry_out(operation, jobs[: len(jobs) // 2], now_us)
        raise RuntimeError("dies here")

    scheduler.batches.carry_out = half  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="dies here"):
        await duty.run()
    scheduler.batches.carry_out = carry_out  # type: ignore[method-assign]
    kit.clock.advance(10)


@pytest.mark.parametrize("kind", ["cancel", "retry", "delete", "edit"])
async def test_what_a_process_changed_before_it_died_is_counted(kind: str) -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handles = await scheduler.many(Enqueue(SendWelcome, Welcome(str(n))) for n in range(10))
        if kind in ("retry", "delete"):
            for job in await kit.claim(limit=10):
                await kit.settle(job, outcome=RunOutcome.FAILED, reason=FailReason.EXHAUSTED, error="lost")
            await kit.sync()
        kit.clock.advance(1)
        match kind:
            case "cancel":
                begun = await scheduler.bulk.cancel(state="queued", handler="send-welcome")
            case "retry":
                begun = await scheduler.bulk.retry(handler="send-welcome")
            case "delete":
                begun = await scheduler.bulk.delete(handler="send-welcome")
            case _:
                begun = await scheduler.bulk.edit(priority="low", handler="send-welcome")
        await _carried_out_and_died(kit, scheduler, begun.id)
        assert (await scheduler.bulk.get(begun.id)).changed == 0
        if kind == "cancel":
            # One that was not reached is started meanwhile.
            assert len(await kit.claim(limit=1)) == 1
        done = await carried_out(kit, scheduler, begun.id)
        assert (done.changed, done.skipped) == ((9, 1) if kind == "cancel" else (10, 0))
        assert len(handles.ids) == 10


async def one_in_each_state(kit: Kit, scheduler: Scheduler) -> dict[JobState, str]:
    """A job of `SendWelcome` in every state that a job without dependencies comes to."""
    ids = {}
    for state, outcome in (
        (JobState.SUCCEEDED, RunOutcome.SUCCEEDED),
        (JobState.FAILED, RunOutcome.FAILED),
        (JobState.RUNNING, None),
    ):
        handle = await scheduler.once_now(SendWelcome, Welcome(str(state)))
        (job,) = await kit.claim()
        if outcome is not None:
            reason = FailReason.EXHAUSTED if outcome is RunOutcome.FAILED else None
            await kit.settle(job, outcome=outcome, reason=reason, error=reason and "ValueError: order 7 is lost")
        ids[state] = handle.id
    ids[JobState.QUEUED] = (await scheduler.once_now(SendWelcome, Welcome("queued"))).id
    ids[JobState.HELD] = (await scheduler.once_after(SendWelcome, timedelta(days=1), Welcome("held"))).id
    cancelled = await scheduler.once_after(SendWelcome, timedelta(days=1), Welcome("cancelled"))
    await cancelled.cancel()
    ids[JobState.CANCELLED] = cancelled.id
    await kit.sync()
    kit.clock.advance(1)
    return ids


async def states(scheduler: Scheduler, ids: dict[JobState, str]) -> dict[str, JobState]:
    return {str(before): (await scheduler.get(job_id)).state for before, job_id in ids.items()}


async def test_cancel_ends_all_that_have_not_ended() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        ids = await one_in_each_state(kit, scheduler)
        other = await scheduler.once_now(Plain)
        assert (await scheduler.bulk.count("cancel", handler="send-welcome")).count == 3
        begun = await scheduler.bulk.cancel(handler="send-welcome", who="ada")
        assert (begun.state, begun.total, begun.capped, begun.who) == (OperationState.RUNNING, 3, False, "ada")
        ended = await carried_out(kit, scheduler, begun.id)
        assert (ended.state, ended.changed, ended.skipped) == (OperationState.DONE, 3, 0)
        await kit.sync()
        after = await states(scheduler, ids)
        assert after.pop("succeeded") is JobState.SUCCEEDED
        assert after.pop("failed") is JobState.FAILED
        assert set(after.values()) == {JobState.CANCELLED}
        assert (await scheduler.get(other.id)).state is JobState.QUEUED


async def test_cancel_of_waiting_jobs_leaves_alone_what_was_started_meanwhile() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handles = await scheduler.many(Enqueue(SendWelcome, Welcome(str(n))) for n in range(4))
        kit.clock.advance(1)
        begun = await scheduler.bulk.cancel(state=["queued", "held"], handler="send-welcome")
        revoke = kit.transports["a"].revoke
        started: list[str] = []

        async def late(items: Any) -> Any:
            if not started:
                started.extend(job.id for job in await kit.claim(limit=1))
            return await revoke(items)

        kit.transports["a"].revoke = late
        ended = await carried_out(kit, scheduler, begun.id)
        assert (ended.changed, ended.skipped, len(started)) == (3, 1, 1)
        now = {handle.id: (await scheduler.get(handle.id)).state for handle in handles}
        assert [job_id for job_id, state in now.items() if state is JobState.RUNNING] == started


async def test_retry_runs_each_failed_job_once_more_however_often_its_page_is_looked_at() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        ids = await one_in_each_state(kit, scheduler)
        begun = await scheduler.bulk.retry(handler="send-welcome", fresh=True)
        duty = operator(kit, scheduler)
        save = kit.master.save_operation
        kept: list[Any] = []

        async def lost(operation: Any, node: str) -> Any:
            if operation.pending:
                return await save(operation, node)
            kept.append(operation)
            return None

        kit.master.save_operation = lost
        await duty.run()
        assert kept[0].changed == 2
        # Its process ended before the page was kept; the job has failed again by the time another one goes on.
        assert (await scheduler.get(ids[JobState.FAILED])).state is JobState.HELD
        kit.master.save_operation = save
        kit.clock.advance(60)
        await scheduler.cancel(ids[JobState.FAILED])
        await kit.sync()
        second = operator(kit, scheduler, "node-2")
        await second.run()
        ended = await scheduler.bulk.get(begun.id)
        assert (ended.state, ended.changed) == (OperationState.DONE, 2)
        assert (await scheduler.get(ids[JobState.FAILED])).state is JobState.CANCELLED
        assert (await scheduler.get(ids[JobState.CANCELLED])).state is JobState.HELD


async def test_delete_and_edit_change_what_their_states_allow() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        ids = await one_in_each_state(kit, scheduler)
        edited = await scheduler.bulk.edit(lane="default", to_lane="plain", priority="high")
        assert (await carried_out(kit, scheduler, edited.id)).changed == 2
        for state in (JobState.QUEUED, JobState.HELD):
            job = await scheduler.get(ids[state])
            assert (job.lane, job.priority) == ("plain", Priority.HIGH)
        gone = await scheduler.bulk.delete(state="failed", reason="exhausted")
        assert (await carried_out(kit, scheduler, gone.id)).changed == 1
        found = await scheduler.list(handler=SendWelcome)
        assert {job.id for job in found.jobs} == set(ids.values()) - {ids[JobState.FAILED]}


async def test_a_rate_is_kept_and_a_stop_leaves_the_rest_alone() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        await scheduler.many(Enqueue(SendWelcome, Welcome(str(n))) for n in range(9))
        for job in await kit.claim():
            await kit.settle(job, outcome=RunOutcome.FAILED, reason=FailReason.EXHAUSTED, error="ValueError: x")
        await kit.sync()
        kit.clock.advance(1)
        begun = await scheduler.bulk.retry(handler="send-welcome", per_second=2)
        duty = operator(kit, scheduler)
        for passes in (1, 2):
            await duty.run()
            await duty.run()
            assert (await scheduler.bulk.get(begun.id)).changed == 2 * passes
            kit.clock.advance(1.01)
        stopped = await scheduler.bulk.stop(begun.id)
        await duty.run()
        assert stopped.state is OperationState.STOPPED
        assert (await scheduler.bulk.get(begun.id)).changed == 4
        assert [found.id for found in await scheduler.bulk.list()] == [begun.id]


async def test_what_can_not_be_meant_is_refused() -> None:
    async with opened() as kit:
        bulk = kit.scheduler().bulk
        with pytest.raises(OptionInvalid, match="at least one condition"):
            await bulk.delete()
        with pytest.raises(OptionInvalid, match="states in which a job can be changed by delete"):
            await bulk.delete(state="running")
        with pytest.raises(OptionInvalid, match="per_second"):
            await bulk.retry(lane="default", per_second=0)
        with pytest.raises(OptionInvalid, match="fingerprint"):
            await bulk.retry(fingerprint="x")
        with pytest.raises(OptionInvalid, match="to_lane, priority or both"):
            await bulk.edit(lane="default")
        with pytest.raises(OperationNotFound):
            await bulk.get(new_id())
        with pytest.raises(OperationNotFound):
            await bulk.stop(new_id())
        assert (await bulk.delete(everything=True)).total == 0


async def test_a_job_is_changed_only_if_it_is_what_was_expected() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        ids = await one_in_each_state(kit, scheduler)
        for before, job_id in ids.items():
            for verb in (scheduler.cancel, scheduler.retry, scheduler.delete):
                with pytest.raises(JobConflict, match="it is"):
                    await verb(job_id, expected_state="dispatching")
                with pytest.raises(JobConflict, match="version"):
                    await verb(job_id, expected_version=77)
            assert (await scheduler.get(job_id)).state is before
        queued = await scheduler.get(ids[JobState.QUEUED])
        changed = await scheduler.update(
            queued.id, data=Welcome("eve", 2), priority=Priority.CRITICAL, expected_version=queued.version
        )
        assert (changed.data, changed.priority, changed.version) == (
            {"user_id": "eve", "copies": 2},
            Priority.CRITICAL,
            queued.version + 1,
        )
        with pytest.raises(JobConflict, match=f"at version {changed.version}, not {queued.version}"):
            await scheduler.update(queued.id, lane="plain", expected_version=queued.version)
        assert (await scheduler.cancel(queued.id, expected_state="queued")).cancelled
        assert (await scheduler.cancel(ids[JobState.HELD], expected_state=["queued", "held"])).cancelled
        assert (await scheduler.cancel(ids[JobState.RUNNING], expected_state="running")).was_running
