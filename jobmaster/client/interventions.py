"""Cancel, change, retry, delete: what becomes of one job that exists.

Each asks where the job is, tries there, and looks again if it had moved meanwhile. All guards are in the stores; what
is decided here is only whom to ask.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from jobmaster.agents_open import Agents
from jobmaster.client.expectation import Expectation
from jobmaster.client.lookup import WITH_AGENT, Lookup
from jobmaster.client.placing import Placing
from jobmaster.contracts.entries import HeldAnswer
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    Revocation,
    Revoke,
    RevokeAnswer,
    RevokeKind,
    Signal,
    SignalKind,
)
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model.errors import AgentUnreachable, JobConflict, JobNotFound, StoreError
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.views import CancelOutcome, CancelResult

ROUNDS = 20
"""How often a job that keeps moving is looked for again."""
PAUSE_SECONDS = 0.05
_ANYTHING = Expectation()


class Changes(Struct, frozen=True, kw_only=True):
    """What is to be another one about a waiting job; None: it stays."""

    due_us: int | None = None
    priority: int | None = None
    lane: str | None = None
    data: bytes | None = None


class Interventions:
    """The verbs that change one existing job."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        lookup: Lookup,
        placing: Placing,
        listeners: Listeners,
        *,
        threshold_us: int,
        wake: Callable[[], None],
    ) -> None:
        self._master = master
        self._agents = agents
        self._lookup = lookup
        self._placing = placing
        self._listeners = listeners
        self._threshold_us = threshold_us
        self._wake = wake

    async def cancel(self, job_id: str, expected: Expectation = _ANYTHING) -> CancelResult:
        """Raises `JobNotFound`, and where a store that did not answer may hold it `AgentUnreachable` or
        `MasterUnavailable`; `JobConflict` if it is not what is expected."""
        for _ in range(ROUNDS):
            job = await self._lookup.find(job_id)
            expected.check(job)
            if job.terminal:
                return CancelResult(job_id, CancelOutcome.ALREADY_ENDED, job.state)
            if job.state not in WITH_AGENT:
                (answer,) = await self._master.cancel([job_id], expected.versions(job))
                if answer is HeldAnswer.CHANGED:
                    return self._cancelled(job, was_running=False)
            else:
                revocation = await self._revoke(job, RevokeKind.CANCEL, None if expected.anything else job.version)
                if revocation.answer in (RevokeAnswer.REVOKED, RevokeAnswer.ABSENT):
                    await self._stop(job, revocation)
                    return self._cancelled(job, was_running=revocation.was_running)
            await asyncio.sleep(PAUSE_SECONDS)
        raise self._restless(job_id)

    def tell_cancelled(self, jobs: Iterable[Job]) -> None:
        """Listeners hear of these."""
        for job in jobs:
            self._listeners.emit(
                JobEvent(kind=EventKind.CANCELLED, job_id=job.id, handler=job.handler, lane=job.lane, agent=job.agent)
            )

    def _cancelled(self, job: Job, *, was_running: bool) -> CancelResult:
        self.tell_cancelled([job])
        return CancelResult(job.id, CancelOutcome.CANCELLED, JobState.CANCELLED, was_running)

    async def _stop(self, job: Job, revocation: Revocation) -> None:
        """Tell the worker at once; it would notice by its next extend."""
        if revocation.was_running and revocation.worker is not None:
            assert job.agent is not None
            await self.tell_workers(job.agent, [Signal(revocation.worker, SignalKind.CANCEL, job.id)])

    async def tell_workers(self, agent: str, signals: Sequence[Signal]) -> None:
        """As well as may be: the fence holds without it."""
        if signals:
            with contextlib.suppress(StoreError):
                await self._agents[agent].signal(signals)

    async def change(self, job_id: str, changes: Changes, expected: Expectation = _ANYTHING) -> Job:
        """The job as it then stands. Raises `JobConflict` naming the state that does not allow it, else as cancel."""
        for _ in range(ROUNDS):
            job = await self._lookup.find(job_id)
            expected.check(job)
            if job.state is JobState.RUNNING:
                raise JobConflict(job_id, "it is running, so its time has come", "cancel it, or wait for its end")
            if job.terminal:
                raise JobConflict(job_id, f"it has ended {job.state}", "use retry(id), or enqueue a new job")
            due_us = changes.due_us
            if due_us is not None and job.expires_us is not None and job.expires_us <= due_us:
                raise JobConflict(job_id, "it would expire before that time", "choose an earlier time")
            changed = await self._amend(job, changes)
            if changed is not None:
                if changed.state is JobState.QUEUED and changed.due_us - self._placing.now_us() > self._threshold_us:
                    await self._move(changed)
                self._wake()
                return changed
            await asyncio.sleep(PAUSE_SECONDS)
        raise self._restless(job_id)

    async def _amend(self, job: Job, changes: Changes) -> Job | None:
        """Where it waits, and only if it still is as it was seen."""
        given = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not None}
        change = Amendment(id=job.id, version=job.version, **given)
        if job.state not in WITH_AGENT:
            (answer,) = await self._master.amend([change])
        elif job.state is JobState.QUEUED and job.agent is not None:
            (answer,) = await self._agents[job.agent].amend([change])
        else:
            return None
        return replace(job, version=job.version + 1, **given) if answer is AmendAnswer.CHANGED else None

    async def _move(self, job: Job) -> None:
        """Back to the master, at its new time. If that fails it simply waits on its agent: the time holds there, too,
        which is why it was changed first."""
        try:
            await self._revoke(job, RevokeKind.MOVE)
        except StoreError:
            return

    async def retry(self, job_id: str, expected: Expectation = _ANYTHING, *, fresh: bool) -> Job:
        """failed | cancelled → held, due now, and handed to its agent at once. Raises as `change` does."""
        for _ in range(ROUNDS):
            job = await self._lookup.find(job_id)
            expected.check(job)
            if job.state not in (JobState.FAILED, JobState.CANCELLED):
                ended = (
                    "it has succeeded" if job.state is JobState.SUCCEEDED else f"it has not ended, it is {job.state}"
                )
                raise JobConflict(job_id, ended, "only a failed or cancelled job can be retried")
            (answer,) = await self._master.redrive([job_id], self._placing.now_us(), fresh, expected.versions(job))
            if answer is HeldAnswer.CHANGED:
                return await self._start(job_id, job.agent)
            # Its end is still in its agent's outbox, and in the history in a moment.
            await asyncio.sleep(PAUSE_SECONDS)
        raise JobConflict(job_id, "its end is not in the history yet", "try again once the master is in step")

    async def _start(self, job_id: str, agent: str | None) -> Job:
        (job,) = await self._master.get([job_id])
        if job is None:
            raise JobNotFound(job_id, "it was deleted while it was retried")
        chosen = agent if agent in self._agents else next(iter(self._agents), None)
        if job.state is JobState.HELD and chosen is not None and await self._placing.redispatch(job, chosen):
            return await self._lookup.find(job_id)
        self._wake()
        return job

    async def delete(self, job_id: str, expected: Expectation = _ANYTHING) -> None:
        """Remove an ended job and its runs from the history. Raises as `change` does."""
        for _ in range(ROUNDS):
            job = await self._lookup.find(job_id)
            expected.check(job)
            if not job.terminal:
                raise JobConflict(job_id, f"it has not ended, it is {job.state}", "cancel it first")
            (answer,) = await self._master.delete([job_id], expected.versions(job))
            if answer is HeldAnswer.CHANGED:
                return
            await asyncio.sleep(PAUSE_SECONDS)
        raise JobConflict(job_id, "its end is not in the history yet", "try again once the master is in step")

    async def _revoke(self, job: Job, kind: RevokeKind, version: int | None = None) -> Revocation:
        assert job.agent is not None, job
        if job.agent not in self._agents:
            raise AgentUnreachable(job.agent, "this process has no such agent", "add it to the configuration")
        (revocation,) = await self._agents[job.agent].revoke([Revoke(job.id, job.epoch, kind, version)])
        return revocation

    @staticmethod
    def _restless(job_id: str) -> JobConflict:
        return JobConflict(job_id, f"it changed {ROUNDS} times while being changed", "try again")
