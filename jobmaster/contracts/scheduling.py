"""Schedules as they cross the master contract: definitions, occurrences, and the planning of ticks."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from jobmaster.contracts.entries import Placement
from jobmaster.model.job import Job
from jobmaster.model.terms import Terms


class ScheduleState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class Schedule(Struct, frozen=True, kw_only=True):
    """A recurring definition. `next_us`, its next tick that is not planned yet, is the watermark."""

    key: str
    handler: str
    recurrence: str
    """An encoded `Recurrence`."""
    terms: Terms = Terms()
    profile: str | None = None
    """The profile in code that owns it; None: made at run time."""
    lane: str = "default"
    priority: int = 2
    agent: str | None = None
    data: bytes = b"null"
    policy: bytes = b"{}"
    labels: bytes | None = None
    anchor_us: int = 0
    """Intervals count from here: `start_us`, else the creation. Written by the store."""
    created_us: int = 0
    """Written by the store, as are all below."""
    state: ScheduleState = ScheduleState.ACTIVE
    next_us: int = 0
    look_us: int = 0
    """When a planner has to look at it next."""
    last_job: str | None = None
    """The job of the latest tick that was planned."""
    retire_us: int | None = None
    """It left its profile's code: it ends then, unless it comes back."""
    version: int = 1
    """+1 with every edit."""


class TickState(StrEnum):
    PLANNED = "planned"
    """It has its job."""
    SKIPPED = "skipped"
    """Passed over; the note says why. It has no job and gets none."""
    WITHDRAWN = "withdrawn"
    """Its job was taken back before it ran; wanted again, it gets the same id."""


class Occurrence(Struct, frozen=True, kw_only=True):
    """One tick of a schedule, as it is remembered."""

    schedule: str
    tick_us: int
    job_id: str
    """Reserved for the tick, whether or not there is such a job."""
    state: TickState = TickState.PLANNED
    note: str | None = None
    """Why it was skipped: `overlap` or `misfire`; how it came about otherwise: `backfill`."""
    planned_us: int | None = None
    """Store time when that was decided."""


class OccurrenceEntry(Struct, frozen=True):
    """An occurrence, and its job as the master knows it."""

    occurrence: Occurrence
    job: Job | None


class Taken(Struct, frozen=True):
    """A tick that was withdrawn from the master's side; its agent may still have the job."""

    schedule: str
    tick_us: int
    job_id: str
    epoch: int
    agent: str | None


class Saved(Struct, frozen=True):
    """What a change made of a schedule."""

    schedule: Schedule
    taken: tuple[Taken, ...] = ()
    """To be revoked on their agents."""
    changed: bool = True
    """False: it was so already, and nothing was written."""


class Planning(Struct, frozen=True, kw_only=True):
    """What a planner brings along."""

    limit: int = 500
    """Schedules looked at, at most."""
    jobs: int = 2_000
    """Jobs planned, more or less, at most."""
    ahead_us: int = 0
    """How far before its time a tick may be planned whose schedule lets jobs overlap."""
    agents: Mapping[str, int]
    """The agents served here, each with the put deadline that an epoch tried now has there."""
    instead: Mapping[str, str] = {}
    """For schedules bound to an agent that leaves: the agent served here that takes its place."""
    draws: tuple[str, ...] = ()
    """Agents drawn for schedules that are bound to none, used in turn."""
    lane_draws: Mapping[str, tuple[str, ...]] = {}
    """The same for lanes that only some agents serve, instead of `draws`."""
    ended: Mapping[str, bool] = {}
    """Of jobs named by an earlier report as blocking: whether they have ended, as their agents say."""
    not_before_us: int | None = None
    """Plan nothing if store time is earlier, "jumped"."""
    not_after_us: int | None = None
    """Plan nothing if store time is later."""


class Blocking(Struct, frozen=True):
    """A job that is in the way of its schedule's next tick, as far as the master knows."""

    schedule: str
    job: Job
    cancel: bool
    """It is to be cancelled, rather than asked about."""


class PlanReport(Struct, frozen=True, kw_only=True):
    """What was planned. All of it is committed."""

    now_us: int
    """Store time."""
    placements: tuple[Placement, ...] = ()
    """Dispatching jobs, to be delivered by who asked."""
    blocking: tuple[Blocking, ...] = ()
    """Find out about these and ask again, with `ended`."""
    planned: int = 0
    late_us: int = 0
    """How late the latest of them was planned, beyond its due time."""
    missed: int = 0
    """Ticks passed over as missed."""
    overlapped: int = 0
    """Ticks passed over as their schedule's previous job had not ended."""
    jumped: bool = False
    more: bool = False
    look_us: int | None = None
    """When the next schedule has to be looked at; None: there is none."""


class Soonest(Struct, frozen=True):
    now_us: int
    """Store time."""
    look_us: int | None
    """When the next schedule has to be looked at; None: there is none."""


class Term(Struct, frozen=True):
    """Who does a duty for all, until when. It only saves work: nothing relies on there being one holder."""

    holder: str
    number: int
    """+1 with every change of the holder."""
    until_us: int
    """Store time until which the holder is trusted to do it."""
    now_us: int
    """Store time."""


class Synced(Struct, frozen=True, kw_only=True):
    """What a profile's declarations changed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    revived: tuple[str, ...] = ()
    retiring: tuple[str, ...] = ()
    """Not declared any more: they end when the grace has passed."""
    conflicts: tuple[tuple[str, str], ...] = ()
    """Keys of somebody else's, and whose: a profile, or "" for one made at run time. Then nothing was changed."""
    taken: tuple[Taken, ...] = ()
    """To be revoked on their agents."""

    @property
    def nothing(self) -> bool:
        return not (self.added or self.changed or self.revived or self.retiring)
