"""What is written about a run: its settlement or release, and the event for listeners once that was accepted."""

from typing import assert_never

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import Release, Settlement
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model.detail import RunDetail
from jobmaster.model.outcome import Failed, Interrupted, Outcome, RetryAt, RunError, RunOutcome, Snoozed, Succeeded
from jobmaster.model.states import FailReason
from jobmaster.worker.lease import Lease

SECOND = 1_000_000

_KINDS = {
    RunOutcome.SUCCEEDED: EventKind.SUCCEEDED,
    RunOutcome.FAILED: EventKind.FAILED,
    RunOutcome.RETRY_AT: EventKind.RETRY,
}


def settlement_of(lease: Lease, outcome: Outcome, worker: str, host: str, clock: Clock) -> Settlement:
    """The outcome, with the times and the long part of its run."""
    reason: FailReason | None = None
    error: RunError | None = None
    result: bytes | None = None
    after_us = 0
    match outcome:
        case Succeeded():
            kind, result = RunOutcome.SUCCEEDED, outcome.result
        case Failed():
            kind, reason, error = RunOutcome.FAILED, outcome.reason, outcome.error
        case RetryAt():
            kind, after_us, error = RunOutcome.RETRY_AT, outcome.after_us, outcome.error
        case Snoozed():
            kind, after_us = RunOutcome.SNOOZED, outcome.after_us
        case Interrupted():
            kind = RunOutcome.INTERRUPTED
        case _:
            assert_never(outcome)
    finished_us = clock.wall_us()
    progress = lease.progress
    return Settlement(
        id=lease.id,
        token=lease.token,
        outcome=kind,
        reason=reason,
        after_us=after_us,
        result=result,
        error=None if error is None else error.line(),
        detail=_detail(lease, error),
        attempt=lease.job.attempts + 1,
        worker=worker,
        host=host,
        started_us=finished_us if lease.started_us is None else lease.started_us,
        finished_us=finished_us,
        progress=None if progress is None else progress[0],
        progress_note=None if progress is None else progress[1],
        job=lease.job,
    )


def release_of(lease: Lease, worker: str, host: str) -> Release:
    """The lease given back, as interrupted if its handler was called."""
    started = lease.started_us is not None
    return Release(
        id=lease.id,
        token=lease.token,
        started=started,
        worker=worker,
        host=host,
        started_us=lease.started_us,
        detail=_detail(lease, None, note=str(lease.ending) if lease.ending else None) if started else None,
    )


def event_of(lease: Lease, settlement: Settlement, listeners: Listeners, *, refused: bool = False) -> JobEvent | None:
    """What listeners are told, if anyone wants to know."""
    kind = EventKind.LATE_RESULT if refused else _KINDS.get(settlement.outcome)
    if kind is None or not listeners.wants(kind):
        return None
    job = lease.job
    return JobEvent(
        kind=kind,
        job_id=job.id,
        handler=job.handler,
        lane=job.lane,
        agent=job.agent,
        worker=settlement.worker,
        attempt=settlement.attempt,
        error=settlement.error,
        reason=str(settlement.outcome) if refused else settlement.reason and str(settlement.reason),
        result=settlement.result,
        delay_seconds=settlement.after_us / SECOND if kind is EventKind.RETRY else None,
        duration_seconds=max(0, settlement.finished_us - settlement.started_us) / SECOND,
    )


def _detail(lease: Lease, error: RunError | None, note: str | None = None) -> bytes | None:
    progress, log = lease.progress, lease.log
    if error is None and progress is None and log is None and note is None:
        return None
    return RunDetail(
        error=error,
        log=() if log is None else log.lines,
        progress=None if progress is None else progress[0],
        progress_note=None if progress is None else progress[1],
        note=note,
    ).encode()
