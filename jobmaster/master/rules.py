"""What the master makes of a job: the decisions that every store shares, as pure functions.

A store only finds rows, asks here, and writes what it is told, guarded by what it had read.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import cycle

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from jobmaster.contracts.decisions import cancelled, moved, released
from jobmaster.contracts.entries import (
    AgentEntry,
    AgentState,
    ApplyAnswer,
    Dispatch,
    Event,
    HeldAnswer,
    Placement,
    Routes,
)
from jobmaster.contracts.operating import Operation, OperationState
from jobmaster.contracts.values import AmendAnswer, Amendment, OutboxRecord, PutAnswer, Release, Revoke, RevokeKind
from jobmaster.model.errors import IllegalMove, OptionInvalid
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import TERMINAL, FailReason, JobState, check_move

DISPATCH_US = 30_000_000
"""How long a dispatcher owns a hand-off before another may take it over."""

WAITING = frozenset({JobState.AWAITING, JobState.HELD})
"""Live states in which a job is the master's own."""

ON_AGENTS = frozenset({JobState.DISPATCHING, JobState.QUEUED, JobState.RUNNING})
"""States in which a job is, or is about to be, an agent's."""

REDRIVABLE = frozenset({JobState.FAILED, JobState.CANCELLED})

INSERTED = frozenset({JobState.AWAITING, JobState.HELD, JobState.DISPATCHING})
"""States in which a job may be new on the master."""

_CURSOR = re.compile("[0-9a-f-]{36}")

LARGEST = 2**63 - 1


class RecordError(ValueError):
    """An outbox record that no store may take in; it belongs into the quarantine."""


class Stamp(Struct, frozen=True):
    """How new what is known of a job is."""

    epoch: int
    version: int


def newer(job: Job | Stamp, known: Job | Stamp | None) -> bool:
    """Whether a copy may replace what is known."""
    return known is None or (job.epoch, job.version) > (known.epoch, known.version)


def new_placement(placement: Placement, now_us: int) -> Placement:
    """The placement as it is stored: dispatching jobs carry the end of their dispatcher's right, others no deadline.
    Raises `IllegalMove` for a state in which no job begins on the master."""
    job = placement.job
    if job.state not in INSERTED or (job.state is JobState.DISPATCHING and job.agent is None):
        raise IllegalMove(job.id, "new", job.state, sorted(INSERTED))
    if job.state is not JobState.DISPATCHING:
        return Placement(job)
    until = placement.dispatch_until_us
    return Placement(job, now_us + DISPATCH_US if until is None else until, placement.put_deadline_us)


def insert_answer(known: Job, job: Job) -> PutAnswer:
    """What to say to an id that is known."""
    same = known.handler == job.handler and known.data == job.data
    return PutAnswer.DUPLICATE if same else PutAnswer.CONFLICT


def routed(jobs: Iterable[Job], routes: Routes) -> list[Dispatch]:
    """Which of these held jobs goes where; those without a route are left out."""
    draws, lane_draws = cycle(routes.draws), {lane: cycle(drawn) for lane, drawn in routes.lane_draws.items()}
    moves = []
    for job in jobs:
        agent = None if job.agent is None else routes.instead.get(job.agent, job.agent)
        if agent is None:
            agent = next(lane_draws.get(job.lane, draws), None)
        if agent is not None and agent in routes.agents:
            moves.append(Dispatch(job.id, job.version, agent, routes.agents[agent]))
    return moves


def handed_off(job: Job, agent: str) -> Job:
    """A held job on its way to an agent, in a new epoch."""
    check_move(job.id, job.state, JobState.DISPATCHING)
    return replace(
        job, state=JobState.DISPATCHING, epoch=job.epoch + 1, version=job.version + 1, claim_seq=0, agent=agent
    )


def redriven(job: Job, due_us: int, fresh: bool) -> Job:
    """A failed or cancelled job, held again. An expiry that would end it at once is dropped: somebody wants it run."""
    check_move(job.id, job.state, JobState.HELD)
    expires_us = None if job.expires_us is not None and job.expires_us <= due_us else job.expires_us
    again = replace(
        job,
        state=JobState.HELD,
        reason=None,
        version=job.version + 1,
        due_us=due_us,
        expires_us=expires_us,
        finished_us=None,
        started_us=None,
        suspect=False,
        progress=None,
        progress_note=None,
        result=None,
    )
    return replace(again, attempts=0, crash_count=0, snoozes=0, interrupts=0) if fresh else again


def expected(ids: Sequence[str], versions: Sequence[int] | None) -> Mapping[str, int]:
    """The versions that jobs have to be at, by id; none for those that are changed whatever they are at."""
    return {} if versions is None else dict(zip(ids, versions, strict=True))


def held_answer(state: JobState | None) -> HeldAnswer:
    """Why a request about a job in that state changes nothing."""
    if state is None:
        return HeldAnswer.UNKNOWN
    return HeldAnswer.REFUSED if state in WAITING or state in TERMINAL else HeldAnswer.ELSEWHERE


def amend_answer(known: Job | None, change: Amendment) -> AmendAnswer:
    """Whether the change applies. A job that is not the master's to change any more is a conflict: read it again."""
    if known is None:
        return AmendAnswer.UNKNOWN
    if known.state is JobState.RUNNING:
        return AmendAnswer.RUNNING
    fits = known.state in WAITING and known.version == change.version
    return AmendAnswer.CHANGED if fits else AmendAnswer.CONFLICT


def entered(known: AgentEntry | None, given: AgentEntry) -> AgentEntry:
    """What is stored of an agent that starts: nothing of it if the name stands for another store already, so that the
    mistake is seen at every start and not only at the first; and the high-water mark of one store never falls."""
    if known is None:
        return given
    if same_store(known, given):
        return replace(known, kind=given.kind, high_water=max(known.high_water, given.high_water))
    return known


def turned(known: AgentEntry, state: AgentState, target: str | None, unless: AbstractSet[AgentState]) -> AgentEntry:
    """An agent after an operator's decision; the same entry where nothing changes."""
    if known.state in unless or (known.state, known.target) == (state, target):
        return known
    return replace(known, state=state, target=target)


def turning(entry: AgentEntry, who: str) -> Event:
    """The record of such a decision."""
    detail = None if entry.target is None else msgspec.json.encode({"target": entry.target})
    return Event(id=new_id(), kind=f"agent.{entry.state}", subject=entry.name, who=who, detail=detail)


def same_store(known: AgentEntry, given: AgentEntry) -> bool:
    """Whether two entries of one name mean the same store, in the same life."""
    return (known.fingerprint, known.incarnation) == (given.fingerprint, given.incarnation)


def check_page(cursor: str | None, limit: int) -> None:
    """Raise `OptionInvalid` for a cursor that no page gave, or a limit that is none."""
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise OptionInvalid("cursor", cursor, "the cursor of an earlier page, unchanged")
    if limit < 1:
        raise OptionInvalid("limit", limit, "at least 1")


class Intake(Struct):
    """What a batch of records makes of the jobs it speaks of."""

    jobs: list[Job]
    """To be written, one per job."""
    runs: list[Run]
    """To be inserted."""
    answers: list[ApplyAnswer]


def take_in(
    records: Sequence[OutboxRecord], known: Mapping[str, Job | Stamp], runs: AbstractSet[tuple[str, int]]
) -> Intake:
    """Fold records, each with a job or a revocation, into what is known of their jobs and of their runs, by (job,
    token); of a job that is revoked all must be known. A job takes the state of its newest record; runs are never
    folded. A record is applied if it told something new, be it overtaken by another of the same batch."""
    now: dict[str, Job | Stamp] = dict(known)
    fresh_runs: dict[tuple[str, int], Run] = {}
    answers = []
    for record in records:
        job, run, new = reported(record), record.run, False
        if job is not None:
            new = newer(job, known.get(job.id))
            if newer(job, now.get(job.id)):
                now[job.id] = job
        elif record.revoked is not None:
            whole = now.get(record.revoked.id)
            assert not isinstance(whole, Stamp)
            unseen = revoked_unseen(whole, record.revoked, record.at_us)
            if unseen is not None:
                job, run = unseen[0], run or unseen[1]
            if job is not None:
                new, now[job.id] = True, job
        if run is not None and (run.job_id, run.token) not in runs and (run.job_id, run.token) not in fresh_runs:
            new, fresh_runs[run.job_id, run.token] = True, run
        answers.append(ApplyAnswer.APPLIED if new else ApplyAnswer.OLD)
    changed = [job for job_id, job in now.items() if isinstance(job, Job) and job is not known.get(job_id)]
    return Intake(changed, [*fresh_runs.values()], answers)


def spoken_of(records: Iterable[OutboxRecord]) -> set[str]:
    """The ids of all jobs that the records concern."""
    ids = set()
    for record in records:
        ids |= {part.id for part in (record.job, record.revoked) if part is not None}
        ids |= {record.run.job_id} if record.run is not None else set()
    return ids


def reported(record: OutboxRecord) -> Job | None:
    """The job of a record as the master shall have it: what was revoked to be moved is held here."""
    job = record.job
    moved = record.revoked is not None and record.revoked.kind is RevokeKind.MOVE
    if job is not None and moved and job.state in {JobState.DISPATCHING, JobState.QUEUED}:
        return replace(job, state=JobState.HELD)
    return job


def revoked_unseen(known: Job | None, revoke: Revoke, at_us: int) -> tuple[Job, Run | None] | None:
    """What the revocation of an id the agent never saw makes of the live row, and the run it cuts short; None: nothing.
    It holds for exactly the epoch it names, whatever the version. A job that ran there, as its last copy says, was lost
    with its store: it is given back as by a release."""
    if known is None or known.epoch != revoke.epoch or known.state not in ON_AGENTS:
        return None
    if revoke.kind is RevokeKind.CANCEL:
        return cancelled(known, at_us)
    run = None
    if known.state is JobState.RUNNING:
        known, run = released(known, Release(known.id, known.token), at_us)
        if known.terminal:
            return known, run
    return moved(known), run


def check_record(record: OutboxRecord) -> None:
    """Raise `RecordError` for what the SQL stores' constraints refuse, for a store that has none."""
    job, run = record.job, record.run
    if job is None and record.revoked is None:
        raise RecordError("the record can't be read: it has neither a job nor a revocation")
    if job is not None:
        if job.state not in frozenset(JobState):
            raise RecordError(f"job {job.id}: state {job.state!r} does not exist")
        if (job.reason is not None) is not (job.state is JobState.FAILED) or (
            job.reason is not None and job.reason not in frozenset(FailReason)
        ):
            raise RecordError(f"job {job.id}: state {job.state} with reason {job.reason!r}")
        if (job.finished_us is not None) is not job.terminal:
            raise RecordError(f"job {job.id}: state {job.state} with finished_us {job.finished_us!r}")
        if len(job.id) != 36 or job.epoch < 0 or job.version < 1 or max(_integers(job)) > LARGEST:
            raise RecordError(f"job {job.id}: a number or the id is out of range")
    if run is not None and (run.outcome not in frozenset(RunOutcome) or run.token > LARGEST or run.token < 0):
        raise RecordError(f"run of job {run.job_id}: outcome {run.outcome!r}, token {run.token!r}")


def _integers(job: Job) -> Iterable[int]:
    return (job.epoch, job.version, job.claim_seq, job.due_us, job.created_us, job.finished_us or 0, job.attempts)


def raw_record(record: OutboxRecord) -> bytes:
    """The record as the quarantine keeps it: what was stored, or else all of it as JSON."""
    return record.raw if record.raw is not None else _encoder.encode(record)


_encoder = msgspec.json.Encoder()


def begun(operation: Operation, now_us: int) -> Operation:
    """An operation as it is first stored; one that is only kept for the record has ended with that."""
    ended = None if operation.state is OperationState.RUNNING else now_us
    return replace(operation, created_us=now_us, finished_us=ended)


def carried_on(stored: Operation, given: Operation, now_us: int) -> Operation:
    """What its node made of an operation; one that was stopped meanwhile stays so, with what had been done by then."""
    kept = replace(given, created_us=stored.created_us, finished_us=stored.finished_us)
    if stored.state is not OperationState.RUNNING:
        return replace(kept, state=stored.state)
    return kept if given.state is OperationState.RUNNING else replace(kept, finished_us=now_us)


def stopped(stored: Operation, now_us: int) -> Operation:
    if stored.state is not OperationState.RUNNING:
        return stored
    return replace(stored, state=OperationState.STOPPED, finished_us=now_us)
