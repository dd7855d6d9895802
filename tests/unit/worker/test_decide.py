"""What comes of a run: one decision, tried with every way a handler can end."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from jobmaster.model.errors import Reject, RetryAfter, Snooze
from jobmaster.model.job import Job
from jobmaster.model.outcome import Failed, Outcome, RetryAt, Snoozed, Succeeded
from jobmaster.model.policy import Policy
from jobmaster.model.retry import Retry
from jobmaster.model.states import FailReason
from jobmaster.worker.decide import RunTimedOut, decide_error, decide_result, run_error, undecodable

LIMIT = 64 << 10
NO_JITTER = Retry.fixed(5, jitter="none")


def a_job(**fields: Any) -> Job:
    return Job(id="0" * 36, handler="h", created_us=0, original_due_us=0, due_us=0, **fields)


def decided(error: BaseException, policy: Policy | None = None, limit: int = LIMIT, **fields: Any) -> Outcome:
    return decide_error(error, a_job(**fields), policy or Policy(retry=NO_JITTER), limit, random.Random(1))


def failed(outcome: Outcome) -> Failed:
    assert isinstance(outcome, Failed)
    return outcome


def test_an_error_is_tried_again_after_the_policys_delay() -> None:
    outcome = decided(ValueError("no"))

    assert isinstance(outcome, RetryAt)
    assert outcome.after_us == 5_000_000
    assert outcome.error is not None
    assert outcome.error.line() == "ValueError: no"


def test_the_delay_is_drawn_from_the_given_generator() -> None:
    policy = Policy(retry=Retry.exponential(10))

    first = decide_error(ValueError(), a_job(), policy, LIMIT, random.Random(3))
    again = decide_error(ValueError(), a_job(), policy, LIMIT, random.Random(3))

    assert isinstance(first, RetryAt)
    assert first.after_us == again.after_us  # type: ignore[union-attr]
    assert 0 <= first.after_us <= 10_000_000


def test_the_last_attempt_fails_as_exhausted() -> None:
    assert isinstance(decided(ValueError(), attempts=2), RetryAt)
    assert failed(decided(ValueError(), attempts=3)).reason is FailReason.EXHAUSTED


def test_an_error_the_policy_does_not_retry_fails_at_once() -> None:
    policy = Policy(retry=Retry.fixed(never_on=(LookupError,)))

    assert failed(decided(KeyError("k"), policy)).reason is FailReason.EXHAUSTED
    assert isinstance(decided(ValueError(), policy), RetryAt)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
def test_what_would_end_a_program_is_a_failed_attempt(error: BaseException) -> None:
    outcome = decided(error)

    assert isinstance(outcome, RetryAt)
    assert outcome.error is not None
    assert type(error).__qualname__ in outcome.error.type


def test_a_timeout_is_tried_again_and_then_fails_as_timed_out() -> None:
    assert isinstance(decided(RunTimedOut("late")), RetryAt)
    assert failed(decided(RunTimedOut("late"), attempts=3)).reason is FailReason.TIMED_OUT


def test_a_timeout_counts_as_timeout_error_for_the_policy() -> None:
    policy = Policy(retry=Retry.fixed(never_on=(TimeoutError,)))

    assert failed(decided(RunTimedOut("late"), policy)).reason is FailReason.TIMED_OUT


def test_retry_after_overrides_the_delay_but_not_the_attempts() -> None:
    outcome = decided(RetryAfter(timedelta(minutes=7), "busy"))

    assert isinstance(outcome, RetryAt)
    assert outcome.after_us == 420_000_000
    assert failed(decided(RetryAfter(1), attempts=3)).reason is FailReason.EXHAUSTED


def test_a_snooze_is_no_attempt_until_there_were_too_many() -> None:
    policy = Policy(max_snoozes=2)

    assert decided(Snooze(3), policy, snoozes=1, attempts=3) == Snoozed(3_000_000)
    over = failed(decided(Snooze(3), policy, snoozes=2))
    assert over.reason is FailReason.EXHAUSTED
    assert over.error is not None
    assert "max_snoozes=2" in over.error.message


def test_a_rejected_job_is_not_tried_again() -> None:
    outcome = failed(decided(Reject("no such user")))

    assert outcome.reason is FailReason.REJECTED
    assert outcome.error is not None
    assert outcome.error.message == "no such user"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), FailReason.EXHAUSTED),
        (RetryAfter(1), FailReason.EXHAUSTED),
        (Snooze(1), FailReason.EXHAUSTED),
        (RunTimedOut(), FailReason.TIMED_OUT),
    ],
)
def test_at_most_once_is_never_run_again(error: BaseException, reason: FailReason) -> None:
    assert failed(decided(error, Policy(at_most_once=True))).reason is reason


def test_nothing_returned_is_a_success_without_result() -> None:
    assert decide_result(None, LIMIT) == Succeeded(None)


def test_false_is_a_result() -> None:
    assert decide_result(False, LIMIT) == Succeeded(b"false")


@pytest.mark.parametrize("value", [object(), {"a": {1, 2}}, float("nan"), {"x": "\x00"}, lambda: None, [2**70]])
def test_a_result_no_store_could_keep_fails_without_a_retry(value: object) -> None:
    outcome = failed(decide_result(value, LIMIT))

    assert outcome.reason is FailReason.REJECTED
    assert outcome.error is not None
    assert type(value).__name__ in outcome.error.message


def test_a_bad_result_is_named_by_path() -> None:
    outcome = failed(decide_result({"user": {"tags": [1, object()]}}, LIMIT))

    assert outcome.error is not None
    assert "$.user.tags[1]" in outcome.error.message


def test_a_result_over_the_limit_is_refused_with_the_limit() -> None:
    outcome = failed(decide_result("x" * 200, 100))

    assert outcome.reason is FailReason.REJECTED
    assert outcome.error is not None
    assert "100" in outcome.error.message


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even this fails")

    __repr__ = __str__


def test_an_error_whose_str_raises_is_recorded_by_type() -> None:
    outcome = decided(UnspeakableError())

    assert isinstance(outcome, RetryAt)
    assert outcome.error is not None
    assert outcome.error.type.endswith("UnspeakableError")
    assert "RuntimeError" in outcome.error.message


def test_long_errors_are_cut_visibly_and_fit_the_limit() -> None:
    error = run_error(ValueError("x" * 1_000_000), 8_000)

    assert len((error.type + error.message + error.traceback).encode()) <= 8_000
    assert "cut" in error.message


def test_texts_no_store_could_keep_are_cleaned() -> None:
    error = run_error(ValueError("a\x00b\ud800c"), LIMIT)

    (error.message + error.traceback).encode()
    assert "\x00" not in error.message + error.traceback


def test_the_traceback_begins_in_the_handlers_code() -> None:
    def handler() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as caught:
        handler()
    text = run_error(caught.value, LIMIT).traceback

    assert "in handler" in text
    assert "jobmaster/worker" not in text


def test_unreadable_data_fails_as_undecodable() -> None:
    outcome = failed(undecodable(ValueError("bad"), LIMIT))

    assert outcome.reason is FailReason.UNDECODABLE
