"""The values that cross the master contract."""

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from jobmaster.model.job import Job
from jobmaster.model.states import TERMINAL, JobState


class HeldAnswer(StrEnum):
    CHANGED = "changed"
    REFUSED = "refused"
    """Its state does not allow that, or it is at another version than was expected."""
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


class Routes(Struct, frozen=True, kw_only=True):
    """Where held jobs may go: what a coordinator brings along to hand them off."""

    agents: Mapping[str, int]
    """The agents served here that stay, each with the put deadline that an epoch tried now has there."""
    instead: Mapping[str, str | None] = {}
    """For jobs bound to an agent that leaves: the agent that takes its place; None: any."""
    draws: tuple[str, ...] = ()
    """Agents drawn for jobs that are bound to none, used in turn."""
    lane_draws: Mapping[str, tuple[str, ...]] = {}
    """The same for lanes that only some agents serve, instead of `draws`."""


class HandedOff(Struct, frozen=True):
    placements: tuple[Placement, ...] = ()
    """Dispatching jobs, to be delivered by who asked."""
    seen: int = 0
    """Held jobs looked at; those without a route stayed held."""


class Expiry(Struct, frozen=True):
    """Which ended jobs a pruning is about."""

    states: frozenset[JobState] = TERMINAL
    handler: str | None = None
    """None: of any."""
    besides: frozenset[str] = frozenset()
    """But of none of these."""
    jobs_only: bool = False
    """Leave occurrences, workers and events alone."""

    def matches(self, job_handler: str) -> bool:
        """Whether it is about jobs of this handler."""
        return job_handler == self.handler or (self.handler is None and job_handler not in self.besides)


EVERYTHING = Expiry()


class Forgotten(Struct, frozen=True):
    """What one step of forgetting in parts came to."""

    below: str | None = None
    """Ids from here on are forgotten with their part, as long as they tell a time; None: there are no parts."""
    more: bool = False
    """There may be more to do at once."""


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


class AgentState(StrEnum):
    """What an operator decided about an agent. The store keeps whether it is paused or draining itself, so that this
    holds without the master; here it is known to who hands jobs to agents."""

    OPEN = "open"
    PAUSED = "paused"
    """Nothing is claimed there; jobs are still placed."""
    DRAINING = "draining"
    """What has not started moves to other agents."""
    DRAINED = "drained"
    """Nothing is left there, and nothing goes there."""
    RETIRED = "retired"
    """Drained, and taken out of the cluster for good."""
    AWAY = "away"
    """It did not answer for so long that its jobs go elsewhere, until it is back and reconciled."""


LEAVING = frozenset({AgentState.DRAINING, AgentState.DRAINED, AgentState.RETIRED})
"""States in which an operator takes an agent out."""

SHUNNED = LEAVING | {AgentState.AWAY}
"""States in which no job goes to an agent."""


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened to the cluster's topology, and who did it."""

    id: str
    at_us: int = 0
    """Written by the store."""
    kind: str
    """What happened, as `agent.draining`."""
    subject: str
    """What it happened to, by name: an agent, a worker, a handler."""
    who: str
    detail: bytes | None = None
    """A JSON object."""


class AgentEntry(Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    """URL scheme."""
    fingerprint: str
    """Identifies the store behind the name, without secrets."""
    incarnation: str
    """The store that is trusted under this name; any other is quarantined and reconciled."""
    high_water: int = 0
    """The highest outbox sequence seen of it."""
    quarantined: str | None = None
    """Why it is in quarantine, as far as the master was told."""
    state: AgentState = AgentState.OPEN
    """Written by `turn_agent` alone."""
    target: str | None = None
    """Where the jobs of an agent go that leaves; None: to any other."""
