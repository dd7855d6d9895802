"""A job as a row: which columns it has, and how it comes back."""

from collections.abc import Iterable, Sequence
from typing import Any

from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS, Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason, JobState
from jobmaster_agents.mysql.tables import DELAYED, LEASED, PARKED

DERIVED = frozenset({"state", "reason", "agent", "finished_us", "result"})
"""Job fields that have no column, since a job here is neither terminal nor anybody else's."""

COLUMNS = tuple(field for field in JOB_FIELDS if field not in DERIVED)
OWN = ("st", "seq", "leased_until_us", "last_token", "last_digest", "first_data")
LINE = ("line", "line_rank", "seq")
SELECTED = ", ".join(f"j.{name}" for name in (*COLUMNS, *OWN))
"""What a `Row` is made of."""

RECORD_JOB = ", ".join(f"job_{name}" for name in JOB_FIELDS)
RECORD_RUN = ", ".join(f"run_{name}" for name in RUN_FIELDS)
"""The job and the run of an outbox record, for `job_of` and `run_of`."""

_FLAGS = frozenset({"suspect", "effects"})


class Row:
    """A job with what only its store knows of it."""

    __slots__ = ("first_data", "job", "last_digest", "last_token", "leased_until_us", "seq", "st", "stood")

    def __init__(self, agent: str, record: Iterable[Any]) -> None:
        """`record` has the values of `SELECTED`."""
        values = tuple(record)
        self.st, self.seq, self.leased_until_us, self.last_token, self.last_digest, self.first_data = values[
            len(COLUMNS) :
        ]
        state = JobState.RUNNING if self.st == LEASED else JobState.QUEUED
        self.job = Job(state=state, agent=agent, **read(COLUMNS, values[: len(COLUMNS)]))
        self.stood: tuple[str, int] = (self.job.lane, self.st)
        """Where it was counted when it was read."""


def standing(job: Job, st: int, seq: int) -> tuple[str, int, int]:
    """In which line a job stands, and where: the columns `LINE`. What is delayed has its due time for a place."""
    if st == DELAYED:
        return "", 0, job.due_us
    return (job.handler, 0, seq) if st == PARKED else (job.lane, job.priority, seq)


def read(names: Sequence[str], values: Iterable[Any]) -> dict[str, Any]:
    """Fields of a job by name, from their columns: flags are numbers there, a schedule's key is bytes, and who has no
    worker has one without a name."""
    fields = dict(zip(names, values, strict=True))
    for name in _FLAGS:
        if name in fields:
            fields[name] = bool(fields[name])
    if "worker" in fields:
        fields["worker"] = fields["worker"] or None
    if fields.get("schedule") is not None:
        fields["schedule"] = fields["schedule"].decode()
    return fields


def job_of(values: Sequence[Any]) -> Job:
    """The job of an outbox record, from the values of `RECORD_JOB`."""
    fields = read(JOB_FIELDS, values)
    fields["state"] = JobState(fields["state"])
    fields["reason"] = None if fields["reason"] is None else FailReason(fields["reason"])
    return Job(**fields)


def run_of(values: Sequence[Any]) -> Run:
    """The run of an outbox record, from the values of `RECORD_RUN`."""
    fields = dict(zip(RUN_FIELDS, values, strict=True))
    fields["outcome"] = RunOutcome(fields["outcome"])
    return Run(**fields)
