"""What the state machine expects of a store: each job as the contract says it must stand, and every lease ever granted.

Store time passes between a question and its answer, so instants are spans (earliest, latest), and "has it passed?" may
be unknown. On a manual clock spans are points, and nothing is.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from jobmaster.contracts.values import Revocation, RevokeKind, SettleAnswer
from jobmaster.model.job import Job

Span = tuple[int, int]
"""An instant somewhere between two others, in store time."""


def passed(instant: Span, now: Span) -> bool | None:
    """Whether an instant had come when something happened; None if that can't be known."""
    if instant[1] <= now[0]:
        return True
    return False if instant[0] > now[1] else None


class Stand(StrEnum):
    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"


@dataclass
class Expected:
    """A job that must be here."""

    put: Job
    stand: Stand
    due: Span
    version: int
    priority: int
    at_most_once: bool
    max_crashes: int
    soft: bool = False
    """Delayed, but due when that was written: it may count as ready already."""
    token: int = 0
    until: Span = (0, 0)
    """End of the lease."""
    started: bool = False
    suspect: bool = False
    crashes: int = 0
    attempts: int = 0
    interrupts: int = 0
    snoozes: int = 0
    last: tuple[int, int] | None = None
    """Token and digest of the last lease that ended; None if it lapsed or there was none."""


@dataclass
class Gone:
    """A job that must not come back in this or an earlier epoch."""

    epoch: int
    last: tuple[int, int] | None
    cancelled_token: int | None = None
    revoked: tuple[int, RevokeKind] | None = None
    answer: Revocation | None = None


@dataclass
class Model:
    here: dict[str, Expected] = field(default_factory=dict)
    gone: dict[str, Gone] = field(default_factory=dict)
    granted: list[tuple[str, int]] = field(default_factory=list)
    """Every (id, token) ever granted, to be replayed for ever."""
    runs: set[tuple[str, int]] = field(default_factory=set)
    """(id, token) of every run that must be in the outbox, once."""
    ends: list[tuple[str, int, str]] = field(default_factory=list)
    """(id, epoch, state) of every job that left."""
    accepted: dict[tuple[str, int], int] = field(default_factory=dict)
    """(id, token) → digest of what ended that lease."""
    highest: dict[str, int] = field(default_factory=dict)
    """The highest token granted, by id."""

    def leased(self) -> Iterator[Expected]:
        return (job for job in self.here.values() if job.stand is Stand.LEASED)

    def holds(self, job_id: str, token: int) -> Expected | None:
        """The job, if this is the token of its current lease."""
        job = self.here.get(job_id)
        return job if job is not None and job.stand is Stand.LEASED and job.token == token else None

    def overtaken(self, job_id: str, token: int, digest: int) -> frozenset[SettleAnswer]:
        """What may be said to somebody who does not hold the lease: accepted if this is the last word on it, said
        again; stale if it never was; either if a store need not remember so far back."""
        job, gone = self.here.get(job_id), self.gone.get(job_id)
        if (token, digest) in (job and job.last, gone and gone.last):
            return frozenset({SettleAnswer.ACCEPTED})
        if self.accepted.get((job_id, token)) == digest:
            return frozenset({SettleAnswer.ACCEPTED, SettleAnswer.STALE})
        return frozenset({SettleAnswer.STALE})

    def leave(self, job_id: str, state: str, last: tuple[int, int] | None) -> Gone:
        """The job ended, or went back to the master."""
        job = self.here.pop(job_id)
        gone = Gone(job.put.epoch, last)
        self.gone[job_id] = gone
        self.ends.append((job_id, job.put.epoch, state))
        return gone
