"""One claimed job in this process: what the keeper, the slots and the handler's context share about it.

Written from the event loop that runs the handlers and read from the lease keeper's thread too. Each field has one
writer, and what belongs together is one value (`progress` is a pair), so no lock is needed: a reader sees the old or
the new.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from jobmaster.model.job import Job
from jobmaster.model.outcome import Succeeded
from jobmaster.model.policy import Policy

if TYPE_CHECKING:
    from asyncio import Task

    from jobmaster.worker.joblog import JobLog

NEVER = float("inf")


class Ending(StrEnum):
    """Why a run is ended from outside. The first one stays; the outcome is decided by it."""

    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    """Somebody cancelled the job; the store has fenced this run off already."""
    LOST = "lost"
    """The lease is somebody else's, or nobody's."""
    DISTRUSTED = "distrusted"
    """The store has not answered for so long that the lease may have ended."""
    STOPPING = "stopping"
    """The worker is being stopped."""


FENCED = frozenset({Ending.CANCELLED, Ending.LOST})
"""The store has said that this run has no right to the job any more."""


class Holder(Protocol):
    """Who holds leases: the lease keeper, or a stand-in where a handler is tried without a worker."""

    worker_id: str

    def mono(self) -> float:
        """Monotonic seconds, the clock of `trust_until`."""
        ...

    def progressed(self, lease: "Lease") -> None:
        """The handler reported progress. Cheap, from any thread."""
        ...


class Completer(Protocol):
    """Who settles a run inside a transaction of its handler's."""

    async def complete_in(self, lease: "Lease", connection: Any, result: Any) -> None:
        """As `JobContext.complete_in`; leaves what was settled in `completed`."""
        ...


class Slots(Protocol):
    """Where a run gets its slot from."""

    def freed(self, lease: "Lease", seconds: float) -> None:
        """The slot is free again after a run of `seconds`."""
        ...


class Lease:
    """One claim, from the answer that granted it until the one that ended it."""

    __slots__ = (
        "begun",
        "claimed_at",
        "completed",
        "done",
        "ending",
        "hard_at",
        "holder",
        "id",
        "in_grace",
        "job",
        "log",
        "policy",
        "progress",
        "progress_at",
        "progress_sent",
        "slots",
        "started_at",
        "started_us",
        "stop_at",
        "task",
        "token",
        "trust_until",
    )

    def __init__(self, job: Job, holder: Holder, claimed_at: float, trust_until: float) -> None:
        self.job = job
        self.id = job.id
        self.token = job.token
        self.holder = holder
        self.claimed_at = claimed_at
        self.trust_until = trust_until
        """Monotonic: until then no one else can have been granted this job."""
        self.policy: Policy | None = None
        """Decoded when the run begins."""
        self.task: Task[None] | None = None
        self.begun = False
        """The task has taken its first step; cancelled before that, it would never take it."""
        self.slots: Slots | None = None
        """Where its slot goes back to, while it has one."""
        self.started_at = claimed_at
        """Monotonic: when it got its slot, then when its handler was called."""
        self.started_us: int | None = None
        """Wall time of that call; None: there was none."""
        self.stop_at = NEVER
        """Monotonic: the end of the run's timeout; once that has passed, of its grace."""
        self.in_grace = False
        self.hard_at = NEVER
        """Monotonic: timeout plus grace, for who watches a loop that answers no more."""
        self.ending: Ending | None = None
        self.done = False
        """The slot is free again: whatever the handler still does is nobody's business any more."""
        self.progress: tuple[int, str | None] | None = None
        self.progress_sent: tuple[int, str | None] | None = None
        self.progress_at = -NEVER
        """Monotonic: when progress was last sent."""
        self.log: JobLog | None = None
        self.completed: Succeeded | None = None
        """What the handler has settled in a transaction of its own, whether that is committed or not."""

    @property
    def valid(self) -> bool:
        """Whether this run still holds the exclusive right to the job, as far as this process can know."""
        ending = self.ending
        return ending not in FENCED and ending is not Ending.DISTRUSTED and self.holder.mono() < self.trust_until
