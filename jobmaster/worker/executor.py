"""The executor: runs claims, one task each, and turns what came back into outcomes.

A task per job, not one per slot: it costs 2 µs more, and in return a job's context variables never reach the next
job, and a handler that ignores its cancellation is left behind without taking a slot with it. There is no timer per
job: `deadlines.py` looks at all runs at once.
"""

import asyncio
import contextvars
import random
from typing import Any

import structlog

from jobmaster.contracts.clock import Clock
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model import portable
from jobmaster.model.outcome import Failed, Outcome, Succeeded
from jobmaster.model.policy import Policy, decode_policy
from jobmaster.model.states import FailReason
from jobmaster.store_time import StoreTime
from jobmaster.telemetry.failpoints import failpoint
from jobmaster.telemetry.probes import probe
from jobmaster.worker.context import JobContext
from jobmaster.worker.deadlines import Deadlines
from jobmaster.worker.decide import RunTimedOut, decide_error, decide_result, undecodable
from jobmaster.worker.lease import FENCED, Ending, Lease, Slots
from jobmaster.worker.newer import NewerData
from jobmaster.worker.ports import Handlers
from jobmaster.worker.settlement import Settler
from jobmaster.worker.starts import StartRecorder

KNOWN_POLICIES = 1_000
SECOND = 1_000_000

_WITH_GRACE = frozenset({Ending.TIMED_OUT, Ending.CANCELLED, Ending.LOST})
"""Their slot comes back when the grace is over, whether the handler has ended or not."""
_DEFAULT_POLICY = Policy()

_log = structlog.get_logger("jobmaster.worker")


class Executor:
    """All runs of one worker. Lives on the worker's loop."""

    def __init__(
        self,
        *,
        handlers: Handlers,
        settler: Settler,
        starts: StartRecorder,
        newer: NewerData,
        listeners: Listeners,
        store_time: StoreTime,
        clock: Clock,
        rng: random.Random,
        result_bytes: int,
        error_bytes: int,
    ) -> None:
        self.running: set[Lease] = set()
        """Runs that hold a slot."""
        self.abandoned: set[Lease] = set()
        """Runs whose handler ignored their end and is still at it."""
        self.idle = asyncio.Event()
        """Set while nothing runs."""
        self.idle.set()
        self._handlers = handlers
        self._settler = settler
        self._starts = starts
        self._newer = newer
        self._listeners = listeners
        self._store_time = store_time
        self._clock = clock
        self._rng = rng
        self._result_bytes = result_bytes
        self._error_bytes = error_bytes
        self._tell_starts = listeners.wants(EventKind.STARTED)
        self._deadlines = Deadlines(self.running, self.end, self.abandon, clock=clock, rng=rng)
        self._policies: dict[bytes, Policy] = {b"{}": _DEFAULT_POLICY}
        self._context = contextvars.copy_context()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Be ready to run jobs, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._deadlines.start()

    async def stop(self) -> None:
        """Watch no more deadlines. Runs are not touched."""
        await self._deadlines.stop()

    def run(self, slots: Slots, lease: Lease) -> None:
        """Run a claim in a slot of `slots`, which gets it back when the run has ended or was abandoned."""
        assert self._loop is not None
        self.running.add(lease)
        self.idle.clear()
        lease.slots = slots
        lease.started_at = self._clock.mono()
        lease.task = self._loop.create_task(self._run(lease), name=lease.job.handler, context=self._context.copy())

    def end(self, lease: Lease, ending: Ending) -> None:
        """Have a run end, for this reason unless it was given another one before. No effect on one that has ended. A
        claim that still waits for its slot will not be run."""
        if lease.done:
            return
        first = lease.ending is None
        if first:
            lease.ending = ending
        task = lease.task
        if task is None:
            return
        if not lease.in_grace and ending in _WITH_GRACE:
            lease.in_grace = True
            policy = lease.policy or _DEFAULT_POLICY
            lease.stop_at = self._clock.mono() + policy.grace_us / SECOND
        if first and lease.begun:
            task.cancel()
        self._deadlines.watch(lease)

    def abandon(self, lease: Lease) -> None:
        """Wait no longer for a run that was told to end: its slot comes back, and nothing it does counts."""
        task, handler = lease.task, self._handlers.get(lease.job.handler)
        if lease.done or task is None:
            return
        _log.warning(
            "worker.handler_abandoned",
            handler=lease.job.handler,
            job_id=lease.id,
            ending=str(lease.ending),
            in_thread=handler is not None and handler.blocking,
            remedy="it ignored its cancellation; let CancelledError through, or ask job.cancelled in a thread",
        )
        self._set_aside(lease)
        task.cancel()
        if lease.ending in FENCED:
            self._conclude(lease, None, ended=False)
        else:
            self._conclude(lease, self._failed(lease, _overrun(lease)))

    def _set_aside(self, lease: Lease) -> None:
        assert lease.task is not None
        self.abandoned.add(lease)
        lease.task.add_done_callback(lambda _: self.abandoned.discard(lease))

    def leave_behind(self) -> list[str]:
        """The worker goes and these have not ended: no outcome of theirs is taken any more. The handlers' names."""
        names = {lease.job.handler for lease in self.running}
        left = tuple(self.running)
        self.running.clear()
        for lease in left:
            lease.done = True
            self._set_aside(lease)
            self._free(lease)
        return sorted(names)

    async def _run(self, lease: Lease) -> None:
        lease.begun = True
        outcome: Outcome | None = None
        try:
            outcome = await self._attempt(lease)
        except asyncio.CancelledError as error:
            # Only a cancellation from outside is one: a handler that raises the error itself has failed.
            task = lease.task
            if lease.ending is None and task is not None and not task.cancelling():
                outcome = self._failed(lease, error)
        except BaseException as error:
            if lease.ending is None:
                outcome = self._failed(lease, error)
        if not lease.done:
            if lease.ending is Ending.TIMED_OUT:
                outcome = self._failed(lease, _overrun(lease))
            self._conclude(lease, outcome)

    async def _attempt(self, lease: Lease) -> Outcome | None:
        """The outcome of a handler that returned, or of a job that can't be run; None where no run took place."""
        job = lease.job
        handler = self._handlers.get(job.handler)
        if handler is None or lease.ending is not None or self._clock.mono() >= lease.trust_until:
            return None
        try:
            lease.policy = policy = self._policies.get(job.policy) or self._read_policy(job.policy)
            if policy.data_version == handler.version:
                data = handler.schema.decode(job.data)
            elif policy.data_version < handler.version:
                data = handler.read(job.data, policy.data_version)
            else:
                self._newer.met(lease, policy.data_version, handler.version)
                return None
        except Exception as error:
            lease.started_us = self._clock.wall_us()
            return undecodable(error, self._error_bytes)
        if job.expires_us is not None and await self._store_time.fresh_us() >= job.expires_us:
            lease.started_us = self._clock.wall_us()
            return Failed(FailReason.EXPIRED)
        failpoint("run.before_start")
        if job.suspect or policy.at_most_once:
            if job.suspect:
                probe("suspect_run")
            if not await self._starts.record(lease):
                return None
        lease.started_us = self._clock.wall_us()
        lease.started_at = self._clock.mono()
        lease.stop_at = lease.started_at + policy.timeout_us / SECOND
        lease.hard_at = lease.stop_at + policy.grace_us / SECOND
        self._deadlines.watch(lease)
        if self._tell_starts:
            self._listeners.emit(_started(lease))
        value = await handler.invoke(JobContext(lease, data, self))
        failpoint("run.handler_returned")
        return lease.completed or decide_result(value, self._result_bytes)

    async def complete_in(self, lease: Lease, connection: Any, result: Any) -> None:
        """The success of a run, settled in a transaction of its handler's. It is settled once more, like any other,
        when the handler has returned: the store knows it again, or, after a rollback, settles it then."""
        raw = None if result is None else portable.encode(result, limit=self._result_bytes, what="result")
        outcome = Succeeded(raw)
        await self._settler.settle_in(lease, connection, outcome)
        lease.completed = outcome

    def _conclude(self, lease: Lease, outcome: Outcome | None, *, ended: bool = True) -> None:
        """Hand the outcome over, then the slot back. No outcome: the lease goes back, unless the handler has not really
        `ended`, or the job is cancelled."""
        lease.done = True
        if outcome is not None:
            self._settler.settle(lease, outcome)
        elif lease.ending is Ending.CANCELLED or not ended:
            self._settler.forget(lease)
        else:
            # A lost lease may only have expired, with the job not granted to anybody else: a store whose clock was set
            # forward says so of every lease. Given back it need not be waited for; the fence decides.
            self._settler.give_back(lease)
        self.running.discard(lease)
        if not self.running:
            self.idle.set()
            self._settler.hurry()
        self._free(lease)

    def _free(self, lease: Lease) -> None:
        slots, lease.slots = lease.slots, None
        if slots is not None:
            slots.freed(lease, self._clock.mono() - lease.started_at)

    def _failed(self, lease: Lease, error: BaseException) -> Outcome:
        return decide_error(error, lease.job, lease.policy or _DEFAULT_POLICY, self._error_bytes, self._rng)

    def _read_policy(self, raw: bytes) -> Policy:
        # Jobs of one handler mostly carry the same bytes.
        if len(self._policies) >= KNOWN_POLICIES:
            self._policies.clear()
        policy = self._policies[raw] = decode_policy(raw)
        return policy


def _overrun(lease: Lease) -> RunTimedOut:
    policy = lease.policy or _DEFAULT_POLICY
    return RunTimedOut(f"the run did not end within its timeout of {policy.timeout_us / SECOND:g} s")


def _started(lease: Lease) -> JobEvent:
    job = lease.job
    return JobEvent(
        kind=EventKind.STARTED,
        job_id=job.id,
        handler=job.handler,
        lane=job.lane,
        agent=job.agent,
        worker=job.worker,
        attempt=job.attempt,
    )
