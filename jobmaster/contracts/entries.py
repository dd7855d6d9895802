"""The values that cross the master contract."""

from enum import StrEnum

from msgspec import Struct

from jobmaster.model.job import Job
from jobmaster.model.states import JobState


class HeldAnswer(StrEnum):
    CHANGED = "changed"
    REFUSED = "refused"
    """Its state does not allow that."""
    ELSEWHERE = "elsewhere"
    """It is at, or on the way to, an agent: ask there."""
    UNKNOWN = "unknown"


class ApplyAnswer(StrEnum):
    APPLIED = "applied"
    OLD = "old"
    """The master has as much or more already; confirmed all the same."""
    QUARANTINED = "quarantined"


class Placement(Struct, frozen=True, gc=False):
    """A job with what its hand-off needs. The deadlines are None while it is not dispatching."""

    job: Job
    dispatch_until_us: int | None = None
    """Master store time until which its dispatcher owns the hand-off."""
    put_deadline_us: int | None = None
    """Agent store time after which this epoch may no longer be placed."""


class Dispatch(Struct, frozen=True, gc=False):
    """Hand a held job to an agent."""

    id: str
    version: int
    agent: str
    put_deadline_us: int


class MoveReport(Struct, frozen=True):
    moved: int = 0
    effects: int = 0
    """Effect records left for `apply`."""
    more: bool = False


class StateCount(Struct, frozen=True):
    state: JobState
    lane: str
    count: int
    capped: bool = False


class QuarantineEntry(Struct, frozen=True):
    agent: str
    seq: int
    at_us: int
    error: str
    raw: bytes


class DefinitionEntry(Struct, frozen=True, kw_only=True):
    """A handler as other processes may know it without its code."""

    name: str
    lane: str = "default"
    priority: int = 2
    policy: bytes = b"{}"
    data_schema: bytes | None = None
    """JSON Schema of its data; None where it takes any object."""
    agent: str | None = None


class AgentEntry(Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    """URL scheme."""
    fingerprint: str
    """Identifies the store behind the name, without secrets."""
    incarnation: str
    high_water: int = 0


class ScheduleState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    ENDED = "ended"


class Schedule(Struct, frozen=True, kw_only=True):
    """A recurring definition. Its next tick is the watermark."""

    key: str
    handler: str
    interval_us: int
    anchor_us: int
    """Ticks are anchor + n · interval."""
    next_us: int
    state: ScheduleState = ScheduleState.ACTIVE
    lane: str = "default"
    priority: int = 2
    agent: str | None = None
    data: bytes = b"null"
    policy: bytes = b"{}"
    labels: bytes | None = None
    created_us: int


class Occurrence(Struct, frozen=True, kw_only=True):
    """One tick, decided: the job it becomes and where the watermark goes."""

    schedule: str
    tick_us: int
    watermark_us: int
    """What the schedule's `next_us` must still be."""
    next_us: int
    placement: Placement
