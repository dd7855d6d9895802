"""The job and the run, as every tier holds them.

One shape serves enqueue, agents, outbox, master and history, so that a store's columns, the copies between tiers and
the tests can't drift apart: the field names here *are* the column names. All times are microseconds UTC.
"""

from msgspec import Struct

from jobmaster.model.outcome import RunOutcome
from jobmaster.model.priority import Priority
from jobmaster.model.states import TERMINAL, FailReason, JobState
from jobmaster.model.tokens import make_token


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """A job as it stands. Payload fields are bytes, decoded by whoever needs them, row by row."""

    id: str
    """Canonical UUID text, made by the client."""
    handler: str
    lane: str = "default"
    priority: int = Priority.MEDIUM
    state: JobState = JobState.QUEUED
    reason: FailReason | None = None
    """Set when and only when `state` is `failed`."""
    epoch: int = 1
    """How often the job was placed on an agent (0: never yet)."""
    claim_seq: int = 0
    """How often it was claimed in this epoch."""
    version: int = 1
    """+1 on every write by the job's owner. (epoch, version) orders copies."""
    agent: str | None = None
    created_us: int
    original_due_us: int
    due_us: int
    """Not before this instant."""
    expires_us: int | None = None
    """Not started after this instant."""
    first_started_us: int | None = None
    finished_us: int | None = None
    """Set when and only when the state is terminal."""
    attempts: int = 0
    """Failed runs so far."""
    snoozes: int = 0
    interrupts: int = 0
    crash_count: int = 0
    suspect: bool = False
    """A lease of it lapsed: it is run alone, after a recorded start."""
    schedule: str | None = None
    """The schedule this job is an occurrence of."""
    effects: bool = False
    """Its end concerns others (dependents, batch, limits, overlap): its outbox records are of kind `effect`."""
    worker: str | None = None
    """The holder of the lease while `running`, else the last one."""
    started_us: int | None = None
    """Start of the current run, once recorded."""
    progress: int | None = None
    """0 to 100, as the handler last reported."""
    progress_note: str | None = None
    data: bytes = b"null"
    """Portable JSON."""
    policy: bytes = b"{}"
    """An encoded `Policy`."""
    labels: bytes | None = None
    """Encoded `Labels`."""
    result: bytes | None = None
    """Portable JSON, once succeeded."""
    error: str | None = None
    """Type and first line of the last error."""

    @property
    def token(self) -> int:
        """The fencing number of the latest claim. Only meaningful after one."""
        return make_token(self.epoch, self.claim_seq)

    @property
    def attempt(self) -> int:
        """The number of the current or next attempt, from 1."""
        return self.attempts + 1

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


class Run(Struct, frozen=True, kw_only=True, gc=False):
    """One execution of a job, keyed (job_id, token). Written once, never changed."""

    job_id: str
    token: int
    attempt: int
    worker: str
    host: str
    started_us: int | None
    """`None`: the start of this run was never recorded."""
    finished_us: int
    outcome: RunOutcome
    error: str | None = None
    """Type and first line."""
    detail: bytes | None = None
    """An encoded `RunDetail`; `None` where there is nothing to say."""


JOB_FIELDS: tuple[str, ...] = Job.__struct_fields__
RUN_FIELDS: tuple[str, ...] = Run.__struct_fields__
