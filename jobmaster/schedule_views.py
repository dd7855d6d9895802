"""What people and programs outside get to see of schedules: plain frozen values with real datetimes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jobmaster.client.times import from_us, maybe_from_us
from jobmaster.contracts.scheduling import OccurrenceEntry, Saved, Schedule, ScheduleState, Taken, TickState
from jobmaster.model.errors import ExpressionInvalid
from jobmaster.model.priority import Priority
from jobmaster.model.states import FailReason, JobState
from jobmaster.model.terms import Misfire, Overlap
from jobmaster.recurrence import Mark, Recurrence
from jobmaster.views import labels_of, plain, priority_of
from jobmaster.withdrawal import Withdrawal


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """A recurring definition."""

    key: str
    handler: str
    when: str
    """Its expression."""
    timezone: str
    every: timedelta | None
    """Of an interval; None for any other expression."""
    next_at: datetime | None
    """Its next tick that is not planned yet; None while it is paused, and once it has ended."""
    state: ScheduleState
    profile: str | None
    """The profile in code that owns it; None: it was made at run time."""
    retires_at: datetime | None
    """It left its profile's code, and ends then."""
    misfire: Misfire
    most: int
    """With misfire `all`: how many missed ticks run at most."""
    overlap: Overlap
    jitter: timedelta
    start_after: datetime | None
    end_before: datetime | None
    lane: str
    priority: Priority
    agent: str | None
    created_at: datetime
    version: int
    """+1 with every edit."""
    data: Any = None
    tags: tuple[str, ...] = ()
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TickPreview:
    """A tick to come."""

    at: datetime
    """With the offset that the schedule's zone has then."""
    mark: Mark | None
    """What a change of the clocks does to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OccurrenceInfo:
    """A tick of a schedule, and what came of it."""

    schedule: str
    at: datetime
    state: TickState
    note: str | None
    """Why it was skipped (`overlap`, `misfire`), or how it came about (`backfill`)."""
    planned_at: datetime | None
    job_id: str | None
    """None: it has no job."""
    job_state: JobState | None
    reason: FailReason | None
    """Why the job failed, if it did."""
    lateness: timedelta | None
    """From the tick to the first start of its job."""
    duration: timedelta | None
    """From that start to the end of the job, retries included."""


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """What a change of a schedule came to. Ticks are those that were planned ahead."""

    schedule: ScheduleInfo
    changed: bool
    """False: it was so already."""
    withdrawn: tuple[datetime, ...] = ()
    ran: tuple[datetime, ...] = ()
    """Too late to be taken back: their jobs run, or have run."""
    unknown: tuple[datetime, ...] = ()
    """Their agent did not answer: they may run yet."""


@dataclass(frozen=True, slots=True)
class ScheduleDiff:
    """What a start would change about the schedules that the code declares: their keys."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    revived: tuple[str, ...] = ()
    retiring: tuple[str, ...] = ()
    """Not declared any more by a profile that is."""
    conflicts: tuple[tuple[str, str], ...] = ()
    """Keys of somebody else's, and whose: a profile, or "" for one made at run time. Such a start is refused."""

    @property
    def anything(self) -> bool:
        return bool(self.added or self.changed or self.revived or self.retiring or self.conflicts)


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill did."""

    planned: int
    """Jobs made."""
    present: int
    """Ticks that had their job already."""


def schedule_info(schedule: Schedule) -> ScheduleInfo:
    """The view of a schedule."""
    labels, terms = labels_of(schedule.labels), schedule.terms
    when, timezone, every = _rule(schedule)
    return ScheduleInfo(
        key=schedule.key,
        handler=schedule.handler,
        when=when,
        timezone=timezone,
        every=every,
        next_at=from_us(schedule.next_us) if schedule.state is ScheduleState.ACTIVE else None,
        state=schedule.state,
        profile=schedule.profile,
        retires_at=maybe_from_us(schedule.retire_us),
        misfire=terms.misfire,
        most=terms.most,
        overlap=terms.overlap,
        jitter=timedelta(microseconds=terms.jitter_us),
        start_after=maybe_from_us(terms.start_us),
        end_before=maybe_from_us(terms.end_us),
        lane=schedule.lane,
        priority=priority_of(schedule.priority),
        agent=schedule.agent,
        created_at=from_us(schedule.created_us),
        version=schedule.version,
        data=plain(schedule.data),
        tags=labels.tags,
        title=labels.title,
        metadata=labels.metadata,
    )


def _rule(schedule: Schedule) -> tuple[str, str, timedelta | None]:
    try:
        rule = Recurrence.from_json(schedule.recurrence)
        step_us = rule.interval_us
    except ExpressionInvalid:
        return schedule.recurrence, "?", None
    return rule.expression, rule.timezone, None if step_us is None else timedelta(microseconds=step_us)


def schedule_change(saved: Saved, withdrawal: Withdrawal) -> ScheduleChange:
    """The view of a change."""
    return ScheduleChange(
        schedule_info(saved.schedule),
        saved.changed,
        _instants(withdrawal.withdrawn),
        _instants(withdrawal.ran),
        _instants(withdrawal.unknown),
    )


def _instants(taken: Iterable[Taken]) -> tuple[datetime, ...]:
    return tuple(from_us(tick_us) for tick_us in sorted(item.tick_us for item in taken))


def occurrence_info(entry: OccurrenceEntry) -> OccurrenceInfo:
    """The view of an occurrence."""
    tick, job = entry.occurrence, entry.job
    started_us = None if job is None else job.first_started_us
    ended_us = None if job is None else job.finished_us
    return OccurrenceInfo(
        schedule=tick.schedule,
        at=from_us(tick.tick_us),
        state=tick.state,
        note=tick.note,
        planned_at=maybe_from_us(tick.planned_us),
        job_id=None if tick.state is TickState.SKIPPED else tick.job_id,
        job_state=None if job is None else job.state,
        reason=None if job is None else job.reason,
        lateness=None if started_us is None else timedelta(microseconds=started_us - tick.tick_us),
        duration=None
        if started_us is None or ended_us is None
        else timedelta(microseconds=max(0, ended_us - started_us)),
    )
