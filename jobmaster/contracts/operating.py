"""What an operator asked for of many jobs, as it crosses the master contract: kept with who and when, and carried out
by whoever coordinates."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct

from jobmaster.contracts.filters import matches
from jobmaster.contracts.values import JobFilter
from jobmaster.model.fingerprint import fingerprint
from jobmaster.model.job import Job
from jobmaster.model.states import TERMINAL, FailReason, JobState


class OperationKind(StrEnum):
    """What is done to each job."""

    CANCEL = "cancel"
    RETRY = "retry"
    """Ended jobs that did not succeed are run again."""
    DELETE = "delete"
    EDIT = "edit"
    """Waiting jobs get another lane or priority."""


ALLOWED: Mapping[OperationKind, frozenset[JobState]] = {
    OperationKind.CANCEL: frozenset(JobState) - TERMINAL,
    OperationKind.RETRY: frozenset({JobState.FAILED, JobState.CANCELLED}),
    OperationKind.DELETE: TERMINAL,
    OperationKind.EDIT: frozenset({JobState.AWAITING, JobState.HELD, JobState.DISPATCHING, JobState.QUEUED}),
}
"""In which states each may be done."""


class OperationTerms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """To which jobs, and how. All given conditions hold."""

    where: JobFilter = JobFilter()
    until_us: int | None = None
    """Created before this instant."""
    reasons: frozenset[FailReason] = frozenset()
    fingerprints: frozenset[str] = frozenset()
    """Of their errors."""
    fresh: bool = False
    """With `retry`: their counters start anew."""
    per_second: float | None = None
    """At most so many; None: as many as can be."""
    lane: str | None = None
    """With `edit`, as is `priority`."""
    priority: int | None = None


def narrowed(kind: OperationKind, terms: OperationTerms) -> JobFilter | None:
    """The filter with only the states in which it may be done; None: there is none."""
    states = terms.where.states & ALLOWED[kind] if terms.where.states else ALLOWED[kind]
    return msgspec.structs.replace(terms.where, states=states) if states else None


def selects(kind: OperationKind, terms: OperationTerms, job: Job, before_us: int) -> bool:
    """Whether a job is meant by what was asked for at `before_us`: it was there then and, for what is done to ended
    jobs, had ended by then. So what is run again, and ends again, is not run a third time."""
    where = narrowed(kind, terms)
    return (
        where is not None
        and matches(where, job)
        and job.created_us < min(before_us, before_us if terms.until_us is None else terms.until_us)
        and (job.finished_us is None or job.finished_us <= before_us)
        and (not terms.reasons or job.reason in terms.reasons)
        and (not terms.fingerprints or fingerprint(job.handler, job.reason, job.error) in terms.fingerprints)
    )


class OperationState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """Somebody asked for its end before it was done; what it had changed stays changed."""
    FAILED = "failed"
    """It can't go on; the note says why."""


class Operation(Struct, frozen=True, kw_only=True):
    """One change of many jobs, which goes on in the background; afterwards, the record of it."""

    id: str
    """A UUIDv7: newer ones are greater."""
    kind: OperationKind
    terms: OperationTerms = OperationTerms()
    who: str
    state: OperationState = OperationState.RUNNING
    created_us: int = 0
    """Store time. Written by the store, as is `finished_us`."""
    finished_us: int | None = None
    total: int | None = None
    """How many jobs matched when it was asked for; None: nobody counted."""
    capped: bool = False
    """There were more than `total`."""
    cursor: str | None = None
    """Where it goes on."""
    seen: int = 0
    """Jobs looked at."""
    changed: int = 0
    skipped: int = 0
    """Jobs whose state did not allow it by the time they were reached."""
    note: str | None = None
    pending: tuple[tuple[str, int], ...] = ()
    """Id and version of the jobs that are being changed: kept before that is begun, so that who goes on after a crash
    can tell which of them were."""
