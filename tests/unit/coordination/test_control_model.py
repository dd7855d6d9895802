"""Hypothesis plays an operator: every change of one job or of many comes to what the table of moves allows, no more."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobmaster.contracts.operating import ALLOWED, OperationKind, OperationState
from jobmaster.coordination.operator import Operator
from jobmaster.model.errors import JobConflict, JobNotFound
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import MOVES, TERMINAL, FailReason, JobState, may_move
from jobmaster.store_time import StoreTime
from tests.sizes import SIZES
from tests.unit.scheduler.kit import Kit, SendWelcome, Welcome, opened

numbers = st.integers(0, 30)
some_states = st.sets(st.sampled_from(sorted(set(JobState) - {JobState.AWAITING, JobState.DISPATCHING})))
WAITING = frozenset({JobState.HELD, JobState.QUEUED})


class Control(RuleBasedStateMachine):
    """`known` says what each job must be; what was deleted is in none."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.known: dict[str, JobState] = {}
        self.leases: dict[str, Any] = {}
        self.gone: set[str] = set()

    def run(self, deed: Any) -> Any:
        return self.loop.run_until_complete(deed)

    @initialize()
    def open(self) -> None:
        self.stack = AsyncExitStack()
        self.kit: Kit = self.run(self.stack.enter_async_context(opened()))
        self.scheduler = self.kit.scheduler()

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()

    def pick(self, number: int) -> str:
        return sorted(self.known)[number % len(self.known)]

    def become(self, job_id: str, after: JobState) -> None:
        before = self.known[job_id]
        # A retry is two moves at once: back to the master, and to its agent.
        assert before is after or may_move(before, after) or after in _two_moves(before), (before, after)
        self.known[job_id] = after

    @rule(later=st.booleans())
    def enqueue(self, later: bool) -> None:
        delay = timedelta(days=1 if later else 0)
        handle = self.run(self.scheduler.once_after(SendWelcome, delay, Welcome("u")))
        self.known[handle.id] = JobState.HELD if later else JobState.QUEUED

    @rule()
    def claim(self) -> None:
        self.kit.clock.advance(1)
        for job in self.run(self.kit.claim(limit=2)):
            self.become(job.id, JobState.RUNNING)
            self.leases[job.id] = job

    @precondition(lambda self: self.leases)
    @rule(number=numbers, outcome=st.sampled_from([RunOutcome.SUCCEEDED, RunOutcome.FAILED, RunOutcome.RETRY_AT]))
    def settle(self, number: int, outcome: RunOutcome) -> None:
        job = self.leases.pop(sorted(self.leases)[number % len(self.leases)])
        reason = FailReason.EXHAUSTED if outcome is RunOutcome.FAILED else None
        self.run(self.kit.settle(job, outcome=outcome, reason=reason, error="ValueError: x" if reason else None))
        self.run(self.kit.transports["a"].promote(10))
        if self.known.get(job.id) is JobState.RUNNING:
            ends = {RunOutcome.SUCCEEDED: JobState.SUCCEEDED, RunOutcome.FAILED: JobState.FAILED}
            self.become(job.id, ends.get(outcome, JobState.QUEUED))

    @precondition(lambda self: self.known)
    @rule(number=numbers, expected=st.none() | some_states.filter(bool))
    def cancel(self, number: int, expected: set[JobState] | None) -> None:
        job_id = self.pick(number)
        state = self.known[job_id]
        if expected is not None and state not in expected:
            with pytest.raises(JobConflict):
                self.run(self.scheduler.cancel(job_id, expected_state=expected))
            return
        result = self.run(self.scheduler.cancel(job_id, expected_state=expected))
        assert result.cancelled is (state not in TERMINAL)
        assert result.was_running is (state is JobState.RUNNING)
        if state not in TERMINAL:
            self.become(job_id, JobState.CANCELLED)
            self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Whoever held its lease holds nothing any more."""
        if job_id in self.leases:
            self.run(self.kit.succeed([self.leases.pop(job_id)]))

    @precondition(lambda self: self.known)
    @rule(number=numbers, fresh=st.booleans())
    def retry(self, number: int, fresh: bool) -> None:
        job_id = self.pick(number)
        self.run(self.kit.sync())
        if self.known[job_id] not in ALLOWED[OperationKind.RETRY]:
            with pytest.raises(JobConflict):
                self.run(self.scheduler.retry(job_id, fresh=fresh))
            return
        job = self.run(self.scheduler.retry(job_id, fresh=fresh))
        self.become(job_id, job.state)

    @precondition(lambda self: self.known)
    @rule(number=numbers, far=st.booleans(), data=st.booleans())
    def update(self, number: int, far: bool, data: bool) -> None:
        job_id = self.pick(number)
        before = self.run(self.scheduler._lookup.find(job_id))
        changes: dict[str, Any] = {"when": timedelta(days=2)} if far else {"priority": "high"}
        changes |= {"data": Welcome("v")} if data else {}
        if self.known[job_id] not in WAITING:
            with pytest.raises(JobConflict):
                self.run(self.scheduler.update(job_id, **changes))
            return
        after = self.run(self.scheduler.update(job_id, expected_version=before.version, **changes))
        assert after.version > before.version
        with pytest.raises(JobConflict, match="version"):
            self.run(self.scheduler.update(job_id, expected_version=before.version, **changes))
        self.run(self.kit.sync())
        if far:
            self.become(job_id, JobState.HELD)

    @precondition(lambda self: self.known)
    @rule(number=numbers)
    def delete(self, number: int) -> None:
        job_id = self.pick(number)
        self.run(self.kit.sync())
        if self.known[job_id] not in TERMINAL:
            with pytest.raises(JobConflict):
                self.run(self.scheduler.delete(job_id))
            return
        self.run(self.scheduler.delete(job_id))
        del self.known[job_id]
        self.gone.add(job_id)

    @rule(kind=st.sampled_from(OperationKind), states=some_states)
    def bulk(self, kind: OperationKind, states: set[JobState]) -> None:
        if states and states.isdisjoint(ALLOWED[kind]):
            return
        self.run(self.kit.sync())
        self.kit.clock.advance(1)
        meant = [
            job_id for job_id, state in self.known.items() if state in (states or JobState) and state in ALLOWED[kind]
        ]
        bulk = self.scheduler.bulk
        more: dict[str, Any] = {"to_lane": "plain"} if kind is OperationKind.EDIT else {}
        begin = {
            OperationKind.CANCEL: bulk.cancel,
            OperationKind.RETRY: bulk.retry,
            OperationKind.DELETE: bulk.delete,
            OperationKind.EDIT: bulk.edit,
        }[kind]
        begun = self.run(begin(handler="send-welcome", state=states or None, **more))
        assert begun.total == len(meant)
        done = self.run(self.carried_out(begun.id))
        assert (done.state, done.changed, done.skipped) == (OperationState.DONE, len(meant), 0)
        for job_id in meant:
            if kind is OperationKind.CANCEL:
                self.become(job_id, JobState.CANCELLED)
                self.forget(job_id)
            elif kind is OperationKind.RETRY:
                self.become(job_id, JobState.HELD)
            elif kind is OperationKind.DELETE:
                del self.known[job_id]
                self.gone.add(job_id)

    async def carried_out(self, operation_id: str) -> Any:
        time = StoreTime(self.kit.clock, self.kit.master.store_now_us)
        operator = Operator(
            self.kit.master, self.scheduler.batches, master_time=time, node="node", clock=self.kit.clock
        )
        while (found := await self.scheduler.bulk.get(operation_id)).state is OperationState.RUNNING:
            await operator.run()
        return found

    @invariant()
    def every_job_is_what_it_must_be(self) -> None:
        # Not by `get`, which waits for the record of the last run.
        find = self.scheduler._lookup.find
        found = {job_id: self.run(find(job_id)).state for job_id in self.known}
        assert found == self.known
        for job_id in self.gone:
            with pytest.raises(JobNotFound):
                self.run(find(job_id))


def _two_moves(before: JobState) -> set[JobState]:
    if before in (JobState.FAILED, JobState.CANCELLED):
        return {JobState.HELD, JobState.DISPATCHING, JobState.QUEUED}
    return {after for between in MOVES[before] if between is JobState.DISPATCHING for after in MOVES[between]}


TestControl = Control.TestCase
TestControl.settings = settings(
    max_examples=SIZES.examples,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
