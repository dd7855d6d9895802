"""What becomes of a job, and which run is recorded, when something happens to it on an agent. Pure.

Every transport comes to exactly these results, whether it calls these functions row by row or says the same in SQL;
the contract suite compares. Each function takes the job as stored and gives the job to store, `version` up by one;
who may call it (the token, the expected version, the lease) has been checked before, by the store, inside its write.
`now_us` is store time throughout.

Two rules that are easy to get wrong:

- A lapse makes a job suspect and by itself counts nothing. Only the lapse of a run whose start was recorded while the
  job was suspect already is a crash. Nothing but a lapse sets `suspect`, so on a running job the flag still says what
  it said when the job was claimed, and no second one is needed.
- `at_most_once` is enforced here, not only by the worker: nothing puts such a job back in line after a recorded start.
"""

from typing import Any, assert_never

import msgspec

from jobmaster.contracts.values import Amendment, Extension, RecordKind, Release, Revoke, Settlement
from jobmaster.model.detail import RunDetail
from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy, decode_policy
from jobmaster.model.states import FailReason, JobState, check_move

LAPSED_DIGEST = 1
CANCELLED_DIGEST = 2
_RETURNED_DIGEST = 3
_INTERRUPTED_DIGEST = 4

CRASHED_NOTE = "the worker stopped answering during this run"
CUT_SHORT_NOTE = "at_most_once: the run was cut short after its start and is not repeated"
CANCELLED_NOTE = "cancelled while running"


def release_digest(release: Release) -> int:
    """What `Settlement.digest` is for a settle: makes a repeated release recognisable."""
    return _INTERRUPTED_DIGEST if release.started else _RETURNED_DIGEST


def record_kind(job: Job) -> RecordKind:
    """How an outbox record about this job is to be applied, revocations aside, which are always effects."""
    return RecordKind.EFFECT if job.effects or job.state is JobState.HELD else RecordKind.PLAIN


def is_due(job: Job, now_us: int) -> bool:
    return job.due_us <= now_us


def is_expired(job: Job, now_us: int) -> bool:
    """Whether a waiting job, retries included, may not be started any more."""
    return job.expires_us is not None and job.expires_us <= now_us


def policy_of(job: Job) -> Policy:
    """The job's policy; the default where it can't be read, so that one broken row never stops a batch. The worker
    refuses to run such a job (`undecodable`)."""
    try:
        return decode_policy(job.policy)
    except ValueError:
        return Policy()


def placed(job: Job, agent: str) -> Job:
    """A job as its agent stores it at `put`. The version is carried along: from here on the agent is the owner."""
    return msgspec.structs.replace(job, state=JobState.QUEUED, agent=agent)


def claimed(job: Job, worker: str) -> Job:
    """Leased to a worker. The new token is the job's `token`."""
    return _move(job, JobState.RUNNING, claim_seq=job.claim_seq + 1, worker=worker, started_us=None)


def extended(job: Job, item: Extension, now_us: int) -> Job:
    """What a kept lease reported: its start, once, and progress. The same job, same version, if that is nothing new,
    so that a bare extension writes no record."""
    changes: dict[str, Any] = {}
    if item.started and job.started_us is None:
        changes["started_us"] = now_us
        if job.first_started_us is None:
            changes["first_started_us"] = now_us
    if item.progress is not None and (item.progress, item.progress_note) != (job.progress, job.progress_note):
        changes |= {"progress": item.progress, "progress_note": item.progress_note}
    return msgspec.structs.replace(job, version=job.version + 1, **changes) if changes else job


def settled(job: Job, settlement: Settlement, now_us: int) -> tuple[Job, Run]:
    """A run's outcome applied. `failed` and `retry_at` count an attempt, `snoozed` and `interrupted` their own counter,
    which beyond the policy's cap ends the job `failed(exhausted)`. Raises `ValueError` for an outcome that only a
    store may write."""
    s = settlement
    run = Run(
        job_id=job.id,
        token=job.token,
        attempt=job.attempt,
        worker=s.worker,
        host=s.host,
        started_us=s.started_us,
        finished_us=s.finished_us,
        outcome=s.outcome,
        error=s.error,
        detail=s.detail,
    )
    seen: dict[str, Any] = {}
    if job.first_started_us is None:
        # The worker's clock may be off; a job must not seem to have begun after its end.
        seen["first_started_us"] = min(s.started_us, now_us)
    if s.error is not None:
        seen["error"] = s.error
    if s.progress is not None:
        seen |= {"progress": s.progress, "progress_note": s.progress_note}
    match s.outcome:
        case RunOutcome.SUCCEEDED:
            return _end(job, JobState.SUCCEEDED, now_us, result=s.result, **seen), run
        case RunOutcome.FAILED:
            reason = s.reason or FailReason.EXHAUSTED
            return _fail(job, reason, now_us, attempts=job.attempts + 1, **seen), run
        case RunOutcome.RETRY_AT:
            seen["attempts"] = job.attempts + 1
            if policy_of(job).at_most_once:
                return _fail(job, FailReason.EXHAUSTED, now_us, **seen), run
            return _requeue(job, due_us=now_us + s.after_us, **seen), run
        case RunOutcome.SNOOZED:
            policy, seen["snoozes"] = policy_of(job), job.snoozes + 1
            if policy.at_most_once or job.snoozes >= policy.max_snoozes:
                return _fail(job, FailReason.EXHAUSTED, now_us, **seen), run
            return _requeue(job, due_us=now_us + s.after_us, **seen), run
        case RunOutcome.INTERRUPTED:
            return _interrupt(job, now_us, seen), run
        case RunOutcome.LAPSED | RunOutcome.CANCELLED:
            raise ValueError(f"job {job.id}: outcome {s.outcome} is written by the store, a worker cannot settle it")
        case _:
            assert_never(s.outcome)


def released(job: Job, release: Release, now_us: int) -> tuple[Job, Run | None]:
    """A lease given back. A start that the store recorded counts, even if the worker doesn't mention it."""
    if not release.started and job.started_us is None:
        return _requeue(job), None
    started_us = release.started_us if release.started_us is not None else job.started_us
    run = Run(
        job_id=job.id,
        token=job.token,
        attempt=job.attempt,
        worker=release.worker or job.worker or "",
        host=release.host,
        started_us=started_us,
        finished_us=now_us,
        outcome=RunOutcome.INTERRUPTED,
        detail=release.detail,
    )
    seen: dict[str, Any] = {}
    if job.first_started_us is None and started_us is not None:
        seen["first_started_us"] = min(started_us, now_us)
    return _interrupt(job, now_us, seen), run


def lapsed(job: Job, now_us: int) -> tuple[Job, Run | None]:
    """A lease that ran out, or whose worker is dead. A run is recorded only if its start was."""
    if job.started_us is None:
        return _requeue(job, suspect=True), None
    run = _cut(job, RunOutcome.LAPSED, CRASHED_NOTE, now_us)
    policy = policy_of(job)
    if policy.at_most_once:
        return _fail(job, FailReason.CRASHED, now_us, error=CUT_SHORT_NOTE), run
    crashes = job.crash_count + (1 if job.suspect else 0)
    if job.suspect and crashes >= policy.max_crashes:
        return _fail(job, FailReason.CRASHED, now_us, crash_count=crashes, error=CRASHED_NOTE), run
    return _requeue(job, suspect=True, crash_count=crashes), run


def is_meant(job: Job, revoke: Revoke) -> bool:
    """Whether a job that is here is as its revocation expects it."""
    return revoke.version is None or (job.epoch, job.version) == (revoke.epoch, revoke.version)


def cancelled(job: Job, now_us: int) -> tuple[Job, Run | None]:
    """A waiting or leased job cancelled. A leased one leaves a run, `started_us` None if its start was not recorded
    yet: its handler may be running all the same, and its holder's settle will be stale."""
    run = _cut(job, RunOutcome.CANCELLED, CANCELLED_NOTE, now_us) if job.state is JobState.RUNNING else None
    return _end(job, JobState.CANCELLED, now_us), run


def expired(job: Job, now_us: int) -> Job:
    """A waiting job whose time to be started has passed."""
    return _fail(job, FailReason.EXPIRED, now_us)


def unroutable(job: Job, now_us: int) -> Job | None:
    """A waiting job whose handler nobody knows: as it ends if its policy's `unroutable_after` has passed since it was
    due, else None, for it goes on waiting."""
    after_us = policy_of(job).unroutable_after_us
    if after_us is None or now_us < job.due_us + after_us:
        return None
    return _fail(job, FailReason.UNKNOWN_HANDLER, now_us)


def moved(job: Job) -> Job:
    """A waiting job that goes back to the master."""
    return _move(job, JobState.HELD)


def rebased(job: Job, started: bool, now_us: int) -> tuple[Job, Run | None]:
    """A job kept by a store that was set back, in a new epoch: whoever holds a token of the lost time can't settle it.
    Its lease is given back like any, for whose it was nobody can tell any more; `started` says that a start is known of
    which the row knows nothing."""
    version, run = job.version + 1, None
    if job.state is JobState.RUNNING:
        job, run = released(job, Release(job.id, job.token), now_us)
    if started and not job.terminal and policy_of(job).at_most_once:
        job = _fail(job, FailReason.CRASHED, now_us, error=CUT_SHORT_NOTE)
    return msgspec.structs.replace(job, epoch=job.epoch + 1, version=version), run


def amended(job: Job, amendment: Amendment) -> Job:
    """A waiting job with the given changes."""
    changes = {
        name: value
        for name in ("due_us", "priority", "lane", "data")
        if (value := getattr(amendment, name)) is not None
    }
    return msgspec.structs.replace(job, version=job.version + 1, **changes)


def _move(job: Job, state: JobState, **changes: Any) -> Job:
    check_move(job.id, job.state, state)
    return msgspec.structs.replace(job, state=state, version=job.version + 1, **changes)


def _requeue(job: Job, **changes: Any) -> Job:
    return _move(job, JobState.QUEUED, started_us=None, **changes)


def _end(job: Job, state: JobState, now_us: int, **changes: Any) -> Job:
    return _move(job, state, started_us=None, suspect=False, finished_us=now_us, **changes)


def _fail(job: Job, reason: FailReason, now_us: int, **changes: Any) -> Job:
    return _end(job, JobState.FAILED, now_us, reason=reason, **changes)


def _interrupt(job: Job, now_us: int, seen: dict[str, Any]) -> Job:
    policy, seen["interrupts"] = policy_of(job), job.interrupts + 1
    if policy.at_most_once:
        return _fail(job, FailReason.CRASHED, now_us, **{"error": CUT_SHORT_NOTE, **seen})
    if job.interrupts >= policy.max_interrupts:
        return _fail(job, FailReason.EXHAUSTED, now_us, **seen)
    return _requeue(job, **seen)


def _cut(job: Job, outcome: RunOutcome, note: str, now_us: int) -> Run:
    # The host is the worker's to tell, and it can't tell any more.
    return Run(
        job_id=job.id,
        token=job.token,
        attempt=job.attempt,
        worker=job.worker or "",
        host="",
        started_us=job.started_us,
        finished_us=now_us,
        outcome=outcome,
        detail=RunDetail(note=note).encode(),
    )
