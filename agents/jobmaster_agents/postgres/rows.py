"""A job as a row: which columns it has, and how it comes back."""

from collections.abc import Iterable, Sequence
from typing import Any

from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS, Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason, JobState
from jobmaster_agents.postgres.tables import LEASED

DERIVED = frozenset({"state", "reason", "agent", "finished_us", "result"})
"""Job fields that have no column, since a job here is neither terminal nor anybody else's."""

COLUMNS = tuple(field for field in JOB_FIELDS if field not in DERIVED)
_OWN = ("st", "seq", "leased_until_us", "last_token", "last_digest", "first_data")
SELECTED = ", ".join("id::text AS id" if name == "id" else name for name in (*COLUMNS, *_OWN))
"""What a `Row` is made of. Ids are text outside of the database."""

RECORD_JOB = ", ".join("job_id::text AS job_id" if name == "id" else f"job_{name}" for name in JOB_FIELDS)
RECORD_RUN = ", ".join("run_job_id::text AS run_job_id" if name == "job_id" else f"run_{name}" for name in RUN_FIELDS)
"""The job and the run of an outbox record, for `job_of` and `run_of`."""

TYPES: dict[str, str] = {
    **dict.fromkeys(JOB_FIELDS, "bigint"),
    **dict.fromkeys(("id", "job_id"), "uuid"),
    **dict.fromkeys(("handler", "lane", "state", "reason", "agent", "schedule", "worker"), "text"),
    **dict.fromkeys(("progress_note", "error", "host", "outcome"), "text"),
    **dict.fromkeys(("data", "policy", "labels", "result", "detail", "first_data"), "bytea"),
    **dict.fromkeys(("attempts", "snoozes", "interrupts", "crash_count", "attempt"), "integer"),
    **dict.fromkeys(("priority", "progress", "st"), "smallint"),
    **dict.fromkeys(("suspect", "effects"), "boolean"),
    **dict.fromkeys(("token", "last_token", "last_digest", "seq", "leased_until_us"), "bigint"),
}
"""The type of each column of a job, a run, and what a row has besides."""


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
        self.job = Job(state=state, agent=agent, **dict(zip(COLUMNS, values, strict=False)))
        self.stood: tuple[str, int] = (self.job.lane, self.st)
        """Where it was counted when it was read."""


def job_of(values: Sequence[Any]) -> Job:
    """The job of an outbox record, from the values of `RECORD_JOB`."""
    fields = dict(zip(JOB_FIELDS, values, strict=True))
    fields["state"] = JobState(fields["state"])
    fields["reason"] = None if fields["reason"] is None else FailReason(fields["reason"])
    return Job(**fields)


def run_of(values: Sequence[Any]) -> Run:
    """The run of an outbox record, from the values of `RECORD_RUN`."""
    fields = dict(zip(RUN_FIELDS, values, strict=True))
    fields["outcome"] = RunOutcome(fields["outcome"])
    return Run(**fields)
