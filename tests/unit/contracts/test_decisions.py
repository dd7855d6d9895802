"""What becomes of a job: rules that hold for every job, and the ones that are easy to get wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Amendment, Extension, RecordKind, Release, Settlement
from jobmaster.model.errors import IllegalMove
from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.states import MOVES, FailReason, JobState

NOW = 1_800_000_000_000_000
BY_WORKER = (
    RunOutcome.SUCCEEDED,
    RunOutcome.FAILED,
    RunOutcome.RETRY_AT,
    RunOutcome.SNOOZED,
    RunOutcome.INTERRUPTED,
)

policies = st.builds(
    Policy,
    at_most_once=st.booleans(),
    max_crashes=st.integers(0, 3),
    max_snoozes=st.integers(0, 3),
    max_interrupts=st.integers(0, 3),
)
running = st.builds(
    lambda policy, **fields: job(policy=policy.encode(), **fields),
    policies,
    attempts=st.integers(0, 3),
    snoozes=st.integers(0, 3),
    interrupts=st.integers(0, 3),
    crash_count=st.integers(0, 2),
    suspect=st.booleans(),
    started_us=st.sampled_from([None, NOW - 9]),
    first_started_us=st.sampled_from([None, NOW - 99]),
    version=st.integers(1, 9),
)


def job(**fields: object) -> Job:
    values = {
        "id": "0190163d-8694-739b-aea5-966c26f8ad91",
        "handler": "h",
        "state": JobState.RUNNING,
        "claim_seq": 1,
        "worker": "w1",
        "created_us": NOW - 1_000,
        "original_due_us": NOW - 1_000,
        "due_us": NOW - 1_000,
        **fields,
    }
    return Job(**values)  # type: ignore[arg-type]  # a test's short form


def settlement(of: Job, outcome: RunOutcome, **fields: object) -> Settlement:
    values = {
        "attempt": of.attempt,
        "worker": "w1",
        "host": "h",
        "started_us": NOW - 10,
        "finished_us": NOW - 5,
        **fields,
    }
    return Settlement(id=of.id, token=of.token, outcome=outcome, **values)  # type: ignore[arg-type]  # as above


def outcomes_of(before: Job) -> list[tuple[Job, Run | None]]:
    """Whatever may end a lease, applied to one job."""
    return [
        *(decisions.settled(before, settlement(before, outcome, after_us=7), NOW) for outcome in BY_WORKER),
        decisions.released(before, Release(before.id, before.token), NOW),
        decisions.released(before, Release(before.id, before.token, True, "w1", "h", NOW - 3), NOW),
        decisions.lapsed(before, NOW),
        decisions.cancelled(before, NOW),
    ]


@given(running)
def test_whatever_ends_a_lease_gives_a_job_that_may_stand_so(before: Job) -> None:
    for after, run in outcomes_of(before):
        assert after.state in MOVES[JobState.RUNNING]
        assert after.version == before.version + 1
        assert (after.epoch, after.claim_seq, after.data) == (before.epoch, before.claim_seq, before.data)
        assert (after.finished_us is not None) == after.terminal
        assert (after.reason is not None) == (after.state is JobState.FAILED)
        assert after.started_us is None
        assert not (after.terminal and after.suspect)
        assert run is None or (run.job_id, run.token, run.attempt) == (before.id, before.token, before.attempts + 1)


@given(running)
def test_crashes_and_attempts_are_never_mixed(before: Job) -> None:
    for outcome in BY_WORKER:
        after, _ = decisions.settled(before, settlement(before, outcome), NOW)
        assert after.crash_count == before.crash_count
    lapsed, _ = decisions.lapsed(before, NOW)
    assert lapsed.attempts == before.attempts
    started_suspect = before.suspect and before.started_us is not None
    at_most_once = decisions.policy_of(before).at_most_once
    assert lapsed.crash_count == before.crash_count + (started_suspect and not at_most_once)


@given(running)
def test_an_at_most_once_job_is_not_in_line_again_after_a_recorded_start(before: Job) -> None:
    if not decisions.policy_of(before).at_most_once:
        return
    for after, run in outcomes_of(before):
        assert after.terminal or (run is None and before.started_us is None)


@given(running)
def test_counters_stop_at_their_caps(before: Job) -> None:
    policy = decisions.policy_of(before)
    snoozed, _ = decisions.settled(before, settlement(before, RunOutcome.SNOOZED), NOW)
    interrupted, _ = decisions.settled(before, settlement(before, RunOutcome.INTERRUPTED), NOW)

    assert snoozed.terminal == (policy.at_most_once or before.snoozes >= policy.max_snoozes)
    assert interrupted.terminal == (policy.at_most_once or before.interrupts >= policy.max_interrupts)


@pytest.mark.parametrize("outcome", [RunOutcome.LAPSED, RunOutcome.CANCELLED])
def test_a_worker_cannot_settle_what_only_the_store_may_write(outcome: RunOutcome) -> None:
    with pytest.raises(ValueError, match=outcome):
        decisions.settled(job(), settlement(job(), outcome), NOW)


def test_a_late_clock_does_not_make_a_job_begin_after_its_end() -> None:
    after, run = decisions.settled(
        job(), settlement(job(), RunOutcome.SUCCEEDED, started_us=NOW + 10**9, finished_us=NOW + 2 * 10**9), NOW
    )

    assert (after.first_started_us, after.finished_us) == (NOW, NOW)
    assert run.started_us == NOW + 10**9


def test_an_extension_counts_only_news() -> None:
    before = job()
    started = decisions.extended(before, Extension(before.id, before.token, started=True, progress=5), NOW)

    assert (started.started_us, started.first_started_us, started.progress) == (NOW, NOW, 5)
    assert started.version == before.version + 1
    again = Extension(before.id, before.token, started=True, progress=5)
    assert decisions.extended(started, again, NOW + 1) is started


def test_moves_outside_the_table_are_refused() -> None:
    ended, _ = decisions.cancelled(job(), NOW)
    for write in (
        lambda: decisions.claimed(ended, "w2"),
        lambda: decisions.lapsed(ended, NOW),
        lambda: decisions.moved(job()),
        lambda: decisions.claimed(job(), "w2"),
    ):
        with pytest.raises(IllegalMove):
            write()


def test_what_goes_back_to_the_master_is_an_effect() -> None:
    waiting = job(state=JobState.QUEUED)

    assert decisions.record_kind(waiting) is RecordKind.PLAIN
    assert decisions.record_kind(decisions.moved(waiting)) is RecordKind.EFFECT
    assert decisions.record_kind(job(effects=True)) is RecordKind.EFFECT


def test_a_policy_that_cannot_be_read_stops_nothing() -> None:
    broken = job(policy=b"\xff{", started_us=NOW - 1, suspect=True)

    assert decisions.policy_of(broken) == Policy()
    after, run = decisions.lapsed(broken, NOW)
    assert (after.state, after.crash_count) == (JobState.QUEUED, 1)
    assert run is not None


def test_an_amendment_keeps_what_it_does_not_name() -> None:
    waiting = job(state=JobState.QUEUED, priority=3, lane="a")

    after = decisions.amended(waiting, Amendment(id=waiting.id, version=1, lane="b"))

    assert (after.lane, after.priority, after.data, after.version) == ("b", 3, waiting.data, 2)


def test_expiry_ends_a_waiting_job_from_its_instant_on() -> None:
    waiting = job(state=JobState.QUEUED, expires_us=NOW)

    assert [decisions.is_expired(waiting, at) for at in (NOW - 1, NOW, NOW + 1)] == [False, True, True]
    assert not decisions.is_expired(job(state=JobState.QUEUED), NOW)
    assert decisions.expired(waiting, NOW).reason is FailReason.EXPIRED
