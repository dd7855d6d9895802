"""Runs ended from outside: timeouts, cancels, lost and distrusted leases, and handlers that will not end."""

import asyncio
from typing import Any

import pytest
import structlog

from jobmaster.contracts.values import Revoke, RevokeKind, Signal, SignalKind
from jobmaster.listeners import EventKind
from jobmaster.model.errors import Refused
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.retry import Retry
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.clock import ManualClock
from jobmaster.worker.context import JobContext
from jobmaster.worker.lease import Ending, Lease, Slots
from tests.support import eventually
from tests.unit.worker.rig import Rig

SECOND = 1_000_000
TEN_SECONDS = Policy(timeout_us=10 * SECOND, grace_us=2 * SECOND, retry=Retry.never())


class Endless:
    """A handler that runs until it is cancelled, or beyond."""

    def __init__(self, *, swallows: bool = False, returns: bool = False) -> None:
        self.swallows = swallows
        self.returns = returns
        self.cancelled = asyncio.Event()
        self.let_go = asyncio.Event()
        self.contexts: list[JobContext[Any]] = []

    async def __call__(self, job: JobContext[Any]) -> str:
        self.contexts.append(job)
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            if self.returns:
                return "all the same"
            if not self.swallows:
                raise
            while not self.let_go.is_set():
                try:
                    await self.let_go.wait()
                except asyncio.CancelledError:
                    continue
        return "late"


async def advance_in_steps(rig: Rig, seconds: float, step: float = 0.5) -> None:
    """Let time pass so that the keeper beats on the way."""
    for _ in range(round(seconds / step)):
        rig.advance(step)
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_run_past_its_timeout_is_cancelled_and_fails_as_timed_out() -> None:
    handler = Endless()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h", policy=TEN_SECONDS)
        await rig.running(1)
        await advance_in_steps(rig, 9.5)
        assert not handler.cancelled.is_set()
        await advance_in_steps(rig, 0.5)
        job = await rig.ended(job_id)

        assert handler.cancelled.is_set()
        assert (job.state, job.reason) == (JobState.FAILED, FailReason.TIMED_OUT)
        assert "10 s" in str(job.error)
        assert rig.worker.busy == 0


@pytest.mark.asyncio
async def test_a_timed_out_attempt_is_tried_again_while_attempts_are_left() -> None:
    async with Rig({"h": Endless()}) as rig:
        job_id = await rig.put("h", policy=Policy(timeout_us=10 * SECOND))
        await rig.running(1)
        await advance_in_steps(rig, 10)
        run, _ = await rig.run_recorded(job_id)

        assert run.outcome is RunOutcome.RETRY_AT
        assert (await rig.job(job_id)).attempts == 1


@pytest.mark.asyncio
async def test_a_result_returned_after_the_timeout_does_not_count() -> None:
    async with Rig({"h": Endless(returns=True)}) as rig:
        job_id = await rig.put("h", policy=TEN_SECONDS)
        await rig.running(1)
        await advance_in_steps(rig, 10)

        assert (await rig.ended(job_id)).reason is FailReason.TIMED_OUT


@pytest.mark.asyncio
async def test_a_handler_that_swallows_its_cancellation_loses_its_slot_after_the_grace() -> None:
    handler = Endless(swallows=True)
    async with Rig({"h": handler}, slots=1) as rig:
        with structlog.testing.capture_logs() as logged:
            job_id = await rig.put("h", policy=TEN_SECONDS)
            await rig.running(1)
            await advance_in_steps(rig, 11.5)
            assert rig.worker.busy == 1
            await advance_in_steps(rig, 0.5)
            job = await rig.ended(job_id)

        assert job.reason is FailReason.TIMED_OUT
        assert (rig.worker.busy, rig.worker.abandoned) == (0, 1)
        assert [line["handler"] for line in logged if line["event"] == "worker.handler_abandoned"] == ["h"]
        settled = len(rig.settled)
        handler.let_go.set()
        await eventually(lambda: rig.worker.abandoned == 0)
        assert len(rig.settled) == settled
        assert (await rig.job(job_id)).result is None


@pytest.mark.asyncio
async def test_an_abandoned_handlers_slot_runs_the_next_job() -> None:
    stubborn = Endless(swallows=True)
    async with Rig({"h": stubborn, "next": Endless()}, slots=1) as rig:
        await rig.put("h", policy=TEN_SECONDS)
        await rig.running(1)
        following = await rig.put("next")
        await advance_in_steps(rig, 12)
        await rig.running(1)

        assert (await rig.job(following)).state is JobState.RUNNING
        stubborn.let_go.set()


@pytest.mark.asyncio
async def test_long_runs_keep_their_lease() -> None:
    handler = Endless()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h", policy=Policy(timeout_us=600 * SECOND))
        await rig.running(1)
        await advance_in_steps(rig, 120)
        assert (await rig.agent.reap(10)).requeued == 0
        handler.let_go.set()

        assert (await rig.ended(job_id)).state is JobState.SUCCEEDED
        assert len(rig.agent.calls["extend"]) <= 120 / 5 + 1


@pytest.mark.asyncio
async def test_a_cancel_reaches_the_handler_within_a_second_without_a_signal_to_this_process() -> None:
    handler = Endless()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        (answer,) = await rig.agent.revoke([Revoke(job_id, 1, RevokeKind.CANCEL)])
        assert answer.worker == rig.worker.id
        await rig.agent.signal([Signal(rig.worker.id, SignalKind.CANCEL, job_id)])
        await advance_in_steps(rig, 1.0)

        assert handler.cancelled.is_set()
        assert handler.contexts[0].cancelled
        assert not handler.contexts[0].lease_valid
        await eventually(lambda: rig.worker.held == 0)
        assert (await rig.job(job_id)).state is JobState.CANCELLED
        assert rig.agent.calls["settle"] == []


@pytest.mark.asyncio
async def test_a_cancel_in_this_process_reaches_the_handler_at_once() -> None:
    handler = Endless()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        await rig.agent.revoke([Revoke(job_id, 1, RevokeKind.CANCEL)])
        await rig.agent.signal([Signal(rig.worker.id, SignalKind.CANCEL, job_id)])
        rig.worker.signalled()

        await asyncio.wait_for(handler.cancelled.wait(), 5)


@pytest.mark.asyncio
async def test_a_result_of_a_cancelled_run_is_offered_and_refused_and_no_listener_hears_of_it() -> None:
    handler = Endless(returns=True)
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        with structlog.testing.capture_logs() as logged:
            await rig.agent.revoke([Revoke(job_id, 1, RevokeKind.CANCEL)])
            await advance_in_steps(rig, 6)
            await eventually(lambda: rig.worker.held == 0)

        assert "worker.outcome_refused" in [line["event"] for line in logged]
        assert rig.listeners.of(EventKind.SUCCEEDED) == []
        assert rig.settled == []
        assert (await rig.job(job_id)).state is JobState.CANCELLED


@pytest.mark.asyncio
async def test_a_cancelled_handler_that_does_not_end_loses_its_slot_after_the_grace() -> None:
    handler = Endless(swallows=True)
    async with Rig({"h": handler}, slots=1) as rig:
        job_id = await rig.put("h", policy=TEN_SECONDS)
        await rig.running(1)
        await rig.agent.revoke([Revoke(job_id, 1, RevokeKind.CANCEL)])
        await rig.agent.signal([Signal(rig.worker.id, SignalKind.CANCEL, job_id)])
        await advance_in_steps(rig, 3)
        await eventually(lambda: rig.worker.busy == 0)

        assert rig.worker.abandoned == 1
        assert rig.worker.held == 0
        assert rig.agent.calls["settle"] == []
        handler.let_go.set()


@pytest.mark.asyncio
async def test_a_lost_lease_ends_the_run() -> None:
    handler = Endless()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        rig.worker.quiet()
        await rig.agent.reap(10, frozenset({rig.worker.id}))
        await advance_in_steps(rig, 6)

        assert handler.cancelled.is_set()
        await eventually(lambda: rig.worker.busy == 0)
        assert (await rig.job(job_id)).suspect


@pytest.mark.asyncio
async def test_a_lease_that_only_expired_goes_back_once_its_handler_has_ended() -> None:
    """As of a store whose clock was set forward: nobody else has the job, so it need not wait to be reaped."""
    handler = Endless()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        rig.worker.quiet()
        _manual(rig).jump_wall(3_600)
        await advance_in_steps(rig, 6)
        run, _ = await rig.run_recorded(job_id)

        assert handler.cancelled.is_set()
        assert run.outcome is RunOutcome.INTERRUPTED
        job = await rig.job(job_id)
        assert (job.state, job.suspect, job.crash_count) == (JobState.QUEUED, False, 0)


@pytest.mark.asyncio
async def test_a_lost_lease_does_not_go_back_while_its_handler_goes_on() -> None:
    handler = Endless(swallows=True)
    async with Rig({"h": handler}) as rig:
        await rig.put("h", policy=TEN_SECONDS)
        await rig.running(1)
        rig.worker.quiet()
        _manual(rig).jump_wall(3_600)
        await advance_in_steps(rig, 9)
        await eventually(lambda: rig.worker.busy == 0)

        assert (rig.worker.abandoned, rig.worker.held) == (1, 0)
        assert rig.agent.calls["release"] == []
        handler.let_go.set()


def _manual(rig: Rig) -> ManualClock:
    clock = rig.clock
    assert isinstance(clock, ManualClock)
    return clock


@pytest.mark.asyncio
async def test_runs_are_interrupted_when_the_store_has_not_answered_for_too_long() -> None:
    handler = Endless()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        rig.agent.before["extend"] = [Refused("away")] * 100
        rig.agent.before["release"] = [Refused("away")] * 2
        await advance_in_steps(rig, 12)
        assert not handler.cancelled.is_set()
        await advance_in_steps(rig, 1)
        assert handler.cancelled.is_set()
        await advance_in_steps(rig, 3)
        run, _ = await rig.run_recorded(job_id)

        assert run.outcome is RunOutcome.INTERRUPTED
        assert (await rig.job(job_id)).attempts == 0


@pytest.mark.asyncio
async def test_what_a_run_came_to_is_still_offered_after_trust_was_lost() -> None:
    handler = Endless(returns=True)
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        rig.agent.before["extend"] = [Refused("away")] * 100
        await advance_in_steps(rig, 13)

        job = await rig.ended(job_id)
        assert (job.state, job.result) == (JobState.SUCCEEDED, b'"all the same"')


@pytest.mark.asyncio
async def test_a_run_ended_before_its_first_step_gives_its_slot_back() -> None:
    handler = Endless()
    async with Rig({"h": handler}, slots=1, start=False) as rig:
        executor, (pool,) = rig.worker._executor, rig.worker._pools

        def start_and_end(slots: Slots, lease: Lease) -> None:
            executor.run(slots, lease)
            executor.end(lease, Ending.STOPPING)
            rig.worker.quiet()

        pool._start = start_and_end
        job_id = await rig.put("h")
        await rig.worker.start()
        await eventually(lambda: len(rig.agent.calls["release"]) == 1)

        assert (rig.worker.busy, pool.busy, handler.contexts) == (0, 0, [])
        assert (await rig.job(job_id)).interrupts == 0
