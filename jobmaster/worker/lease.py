"""One claimed job in this process: what the keeper, the slots and the handler's context share about it.

Written from the event loop that runs the handlers and read from the lease keeper's thread. Each field has one writer,
and what belongs together is one value (`progress` is a pair), so no lock is needed: a reader sees the old or the new.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from jobmaster.model.job import Job

if TYPE_CHECKING:
    from asyncio import Task

    from jobmaster.worker.joblog import JobLog


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


class Holder(Protocol):
    """Who holds leases: the lease keeper, or a stand-in where a handler is tried without a worker."""

    worker_id: str

    def mono(self) -> float:
        """Monotonic seconds, the clock of `trust_until`."""
        ...

    def progressed(self, lease: "Lease") -> None:
        """The handler reported progress. Cheap, from any thread."""
        ...


class Lease:
    """One claim, from the answer that granted it until the one that ended it."""

    __slots__ = (
        "claimed_at",
        "ending",
        "hold_until",
        "holder",
        "id",
        "job",
        "log",
        "progress",
        "progress_at",
        "progress_sent",
        "start_recorded",
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
        self.hold_until = 0.0
        """Until when it may wait here for a slot."""
        self.trust_until = trust_until
        """Monotonic: until then no one else can have been granted this job."""
        self.started_us: int | None = None
        self.start_recorded = False
        self.ending: Ending | None = None
        self.progress: tuple[int, str | None] | None = None
        self.progress_sent: tuple[int, str | None] | None = None
        self.progress_at = float("-inf")
        """When progress was last sent."""
        self.task: Task[None] | None = None
        self.stop_at = float("inf")
        """The run's next deadline: its timeout, then the end of its grace."""
        self.log: JobLog | None = None

    @property
    def valid(self) -> bool:
        """Whether this run still holds the exclusive right to the job, as far as this process can know."""
        ending = self.ending
        return (
            ending is not Ending.LOST
            and ending is not Ending.CANCELLED
            and ending is not Ending.DISTRUSTED
            and self.holder.mono() < self.trust_until
        )
