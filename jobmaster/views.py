"""What people and programs outside get to see: jobs, runs, pages and counts as plain frozen values with real datetimes
and decoded data. Stored bytes that can't be read are shown as such and never raise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from jobmaster.client.times import from_us, maybe_from_us
from jobmaster.model.detail import RunDetail, decode_detail
from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Labels, Policy, decode_labels, decode_policy
from jobmaster.model.priority import Priority
from jobmaster.model.states import TERMINAL, FailReason, JobState
from jobmaster.model.tokens import token_claim_seq, token_epoch


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a stored value that is no JSON."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One execution of a job."""

    token: int
    attempt: int
    outcome: RunOutcome
    worker: str
    host: str
    started_at: datetime | None
    """None: its start was never recorded."""
    finished_at: datetime
    error_type: str | None = None
    message: str | None = None
    traceback: str | None = None
    log: tuple[str, ...] = ()
    """The last lines the handler logged."""
    progress: int | None = None
    progress_note: str | None = None
    note: str | None = None
    """Why the system ended the run, where it did."""

    @property
    def duration(self) -> timedelta | None:
        return None if self.started_at is None else self.finished_at - self.started_at

    @property
    def epoch(self) -> int:
        return token_epoch(self.token)

    @property
    def claim(self) -> int:
        """Which claim of its epoch this run was."""
        return token_claim_seq(self.token)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """A job as it stood when asked. All times are UTC."""

    id: str
    handler: str
    lane: str
    priority: Priority
    state: JobState
    reason: FailReason | None
    """Why it failed, if it did."""
    agent: str | None
    worker: str | None
    """Who runs it, or ran it last."""
    schedule: str | None
    title: str | None
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    data: Any
    """As JSON values."""
    result: Any
    error: str | None
    """Type and first line of the last error."""
    attempts: int
    """Failed runs so far."""
    max_attempts: int
    snoozes: int
    interrupts: int
    crashes: int
    progress: int | None
    progress_note: str | None
    timeout: timedelta
    created_at: datetime
    original_due_at: datetime
    due_at: datetime
    expires_at: datetime | None
    first_started_at: datetime | None
    finished_at: datetime | None
    epoch: int
    version: int
    runs: tuple[RunInfo, ...] = ()
    """Its recorded runs, oldest first; only `get` fills this."""

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs, newest first, and how to go on."""

    jobs: tuple[JobInfo, ...]
    cursor: str | None
    """Give it back for the next page; None: this was the last."""
    unreachable: tuple[str, ...] = ()
    """Agents that did not answer: their jobs may be missing here."""


class CancelOutcome(StrEnum):
    """What a cancel came to."""

    CANCELLED = "cancelled"
    ALREADY_ENDED = "already_ended"


@dataclass(frozen=True, slots=True)
class CancelResult:
    """`was_running`: a run was under way; it can't commit any more, and its handler is being stopped."""

    id: str
    outcome: CancelOutcome
    state: JobState
    was_running: bool = False

    @property
    def cancelled(self) -> bool:
        return self.outcome is CancelOutcome.CANCELLED


@dataclass(frozen=True, slots=True)
class LaneCounts:
    """One lane: jobs per state, and how long its oldest ready job has been waiting."""

    lane: str
    states: Mapping[JobState, int]
    oldest_ready: timedelta | None = None
    paused_on: tuple[str, ...] = ()
    """The agents on which it is paused."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs there are, per lane and state."""

    lanes: Mapping[str, LaneCounts]
    capped: bool = False
    """Some counts of ended jobs stopped at the cap."""
    unreachable: tuple[str, ...] = ()
    """Agents that did not answer: their jobs are missing here."""
    quarantined: tuple[str, ...] = ()
    """Agents at which nothing happens, as their store is not what it was, until it is reconciled."""

    def total(self, state: JobState) -> int:
        """Over all lanes."""
        return sum(lane.states.get(state, 0) for lane in self.lanes.values())


def plain(raw: bytes | None) -> Any:
    """Stored JSON as Python values."""
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return Unreadable(len(raw))


def job_info(job: Job, runs: Sequence[Run] = ()) -> JobInfo:
    """The view of a job."""
    labels = labels_of(job.labels)
    policy = _policy(job.policy)
    return JobInfo(
        id=job.id,
        handler=job.handler,
        lane=job.lane,
        priority=priority_of(job.priority),
        state=job.state,
        reason=job.reason,
        agent=job.agent,
        worker=job.worker,
        schedule=job.schedule,
        title=labels.title,
        tags=labels.tags,
        metadata=labels.metadata,
        data=plain(job.data),
        result=plain(job.result),
        error=job.error,
        attempts=job.attempts,
        max_attempts=policy.retry.max_attempts,
        snoozes=job.snoozes,
        interrupts=job.interrupts,
        crashes=job.crash_count,
        progress=job.progress,
        progress_note=job.progress_note,
        timeout=timedelta(microseconds=policy.timeout_us),
        created_at=from_us(job.created_us),
        original_due_at=from_us(job.original_due_us),
        due_at=from_us(job.due_us),
        expires_at=maybe_from_us(job.expires_us),
        first_started_at=maybe_from_us(job.first_started_us),
        finished_at=maybe_from_us(job.finished_us),
        epoch=job.epoch,
        version=job.version,
        runs=tuple(run_info(run) for run in runs),
    )


def run_info(run: Run) -> RunInfo:
    """The view of a run."""
    detail = _detail(run.detail)
    error = detail.error
    return RunInfo(
        token=run.token,
        attempt=run.attempt,
        outcome=run.outcome,
        worker=run.worker,
        host=run.host,
        started_at=maybe_from_us(run.started_us),
        finished_at=from_us(run.finished_us),
        error_type=error.type if error else error_parts(run.error)[0],
        message=error.message if error else error_parts(run.error)[1],
        traceback=error.traceback if error else None,
        log=detail.log,
        progress=detail.progress,
        progress_note=detail.progress_note,
        note=detail.note,
    )


def error_parts(line: str | None) -> tuple[str | None, str | None]:
    """Type and message out of an error's one-line form."""
    if line is None:
        return None, None
    kind, _, message = line.partition(": ")
    return kind, message or None


def priority_of(rank: int) -> Priority:
    """The nearest priority there is."""
    return Priority(max(Priority.CRITICAL, min(rank, Priority.VERY_LOW)))


def labels_of(raw: bytes | None) -> Labels:
    """Stored labels; none where they can't be read."""
    try:
        return decode_labels(raw)
    except msgspec.DecodeError:
        return Labels()


def _policy(raw: bytes) -> Policy:
    try:
        return decode_policy(raw)
    except msgspec.DecodeError:
        return Policy()


def _detail(raw: bytes | None) -> RunDetail:
    try:
        return decode_detail(raw)
    except msgspec.DecodeError:
        return RunDetail(note="the record of this run can't be read")
