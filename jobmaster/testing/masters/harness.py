"""What a master store supplies to be tested, and the samples the suite works with."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from jobmaster.contracts.entries import Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import Planning, Schedule
from jobmaster.contracts.values import OutboxRecord, RecordKind
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason, JobState
from jobmaster.model.tokens import make_token
from jobmaster.recurrence import Recurrence

SECOND = 1_000_000


class MasterHarness(Protocol):
    """One empty master, for one test."""

    restartable: bool
    """Closing every handle and opening again finds the same rows."""

    async def open(self) -> MasterStore:
        """One more opened handle onto the same rows, as another process would have. Closed after the test."""
        ...

    async def restart(self) -> MasterStore:
        """Close all handles and open a new one."""
        ...

    async def advance(self, seconds: float) -> None:
        """Let store time pass."""
        ...

    async def outbox(self, records: Sequence[OutboxRecord]) -> str | None:
        """The name of an agent's outbox table in the master's own database that holds these records; None where no
        agent can live in it."""
        ...


def sample(state: JobState = JobState.HELD, **fields: Any) -> Job:
    """A job in that state, with what the state demands and otherwise small, distinct values."""
    defaults: dict[str, Any] = {
        "id": new_id(),
        "handler": "send-welcome",
        "state": state,
        "epoch": 0 if state in {JobState.HELD, JobState.AWAITING} else 1,
        "created_us": 1_800_000_000_000_000,
        "original_due_us": 1_800_000_000_000_000,
        "due_us": 1_800_000_000_000_000,
        "data": b'{"user_id":"user_123"}',
    }
    if state in {JobState.DISPATCHING, JobState.QUEUED, JobState.RUNNING}:
        defaults["agent"] = "transport-1"
    if state in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}:
        defaults |= {"agent": "transport-1", "finished_us": 1_800_000_001_000_000, "version": 4, "claim_seq": 1}
    if state is JobState.FAILED:
        defaults["reason"] = FailReason.EXHAUSTED
    return Job(**(defaults | fields))


def held(**fields: Any) -> Placement:
    return Placement(sample(JobState.HELD, **fields))


def dispatching(until_us: int | None = None, **fields: Any) -> Placement:
    return Placement(sample(JobState.DISPATCHING, **fields), until_us, 1_800_000_600_000_000)


def run_of(job: Job, claim_seq: int = 1, **fields: Any) -> Run:
    defaults: dict[str, Any] = {
        "job_id": job.id,
        "token": make_token(max(job.epoch, 1), claim_seq),
        "attempt": 1,
        "worker": "worker-1",
        "host": "host-1",
        "started_us": 1_800_000_000_500_000,
        "finished_us": 1_800_000_001_000_000,
        "outcome": RunOutcome.SUCCEEDED,
    }
    return Run(**(defaults | fields))


def record(job: Job | None, seq: int = 1, kind: RecordKind = RecordKind.PLAIN, **fields: Any) -> OutboxRecord:
    return OutboxRecord(seq=seq, kind=kind, at_us=1_800_000_001_000_000, job=job, **fields)


def schedule(key: str = "welcome", when: Recurrence | timedelta = timedelta(minutes=1), **fields: Any) -> Schedule:
    """A definition as a caller gives it; what the store writes is left to the store."""
    defaults: dict[str, Any] = {
        "key": key,
        "handler": "send-welcome",
        "recurrence": Recurrence.of(when).to_json(),
        "data": b'{"user_id":"user_123"}',
    }
    return Schedule(**(defaults | fields))


def planning(agent: str = "transport-1", **fields: Any) -> Planning:
    """What a planner brings that serves one agent; far into the future, so that no time has to pass."""
    defaults: dict[str, Any] = {
        "agents": {agent: 2_000_000_000_000_000},
        "draws": (agent,),
        "ahead_us": 150 * SECOND,
    }
    return Planning(**(defaults | fields))
