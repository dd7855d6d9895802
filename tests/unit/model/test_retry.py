"""Retry policies: growth, jitter, matching by type, refusal of numbers without meaning, the stored form."""

import math
import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmaster.model.errors import OptionInvalid
from jobmaster.model.retry import LONGEST_US, Jitter, Retry

SECOND = 1_000_000
retries = st.builds(
    lambda make, base, cap, jitter: make(base=base, cap=base + cap, jitter=jitter),
    st.sampled_from([Retry.linear, Retry.exponential]),
    st.integers(0, 10_000),
    st.integers(0, 100_000),
    st.sampled_from(["full", "none"]),
)


class TransientError(Exception):
    pass


class SlowError(TransientError, TimeoutError):
    pass


def test_the_default_is_five_seconds_doubling_to_an_hour_with_four_attempts() -> None:
    policy = Retry()
    assert policy == Retry.exponential()
    assert [policy.ceiling_us(n) // SECOND for n in (1, 2, 3, 10, 11, 12)] == [5, 10, 20, 2560, 3600, 3600]
    assert policy.max_attempts == 4
    assert policy.jitter is Jitter.FULL


def test_growth_follows_its_kind() -> None:
    rng = random.Random(1)
    fixed = Retry.fixed(3, jitter="none")
    linear = Retry.linear(3, jitter="none")
    exponential = Retry.exponential(3, factor=3, jitter="none")
    assert [fixed.delay_us(n, rng) // SECOND for n in (1, 2, 3)] == [3, 3, 3]
    assert [linear.delay_us(n, rng) // SECOND for n in (1, 2, 3)] == [3, 6, 9]
    assert [exponential.delay_us(n, rng) // SECOND for n in (1, 2, 3)] == [3, 9, 27]


@given(retries, st.integers(-3, 10_000), st.randoms(use_true_random=False))
def test_a_delay_lies_between_zero_and_the_cap_for_any_attempt(policy: Retry, attempt: int, rng: random.Random) -> None:
    delay = policy.delay_us(attempt, rng)
    assert isinstance(delay, int)
    assert 0 <= delay <= policy.ceiling_us(attempt) <= policy.cap_us
    if policy.jitter is Jitter.NONE:
        assert delay == policy.ceiling_us(attempt)


@given(retries, st.integers(1, 200))
def test_the_ceiling_never_falls_with_the_attempts(policy: Retry, attempt: int) -> None:
    assert policy.ceiling_us(attempt) <= policy.ceiling_us(attempt + 1)


def test_full_jitter_covers_the_whole_range() -> None:
    rng = random.Random(7)
    draws = [Retry.fixed(10).delay_us(1, rng) for _ in range(2_000)]
    assert min(draws) < SECOND / 10
    assert max(draws) > 9.9 * SECOND
    assert abs(sum(draws) / len(draws) - 5 * SECOND) < SECOND / 3


def test_the_same_seed_gives_the_same_delays() -> None:
    first, second = ([Retry().delay_us(n, rng) for n in range(1, 9)] for rng in (random.Random(3), random.Random(3)))
    assert first == second


@pytest.mark.parametrize("attempt", [10_000, 10**9])
def test_a_huge_attempt_number_gives_the_cap(attempt: int) -> None:
    assert Retry(jitter=Jitter.NONE).ceiling_us(attempt) == 3_600 * SECOND
    assert Retry.exponential(timedelta(days=36_525), factor=1_000).ceiling_us(attempt) == LONGEST_US
    assert Retry.exponential(0, factor=1_000).ceiling_us(attempt) == 0


def test_never_means_one_attempt() -> None:
    assert Retry.never().max_attempts == 1


@pytest.mark.parametrize(
    ("policy", "error", "expected"),
    [
        (Retry(), ValueError(), True),
        (Retry(), KeyboardInterrupt(), True),
        (Retry.exponential(on=[TransientError]), SlowError(), True),
        (Retry.exponential(on=[TransientError]), ValueError(), False),
        (Retry.exponential(on=OSError), SlowError(), True),
        (Retry.exponential(on=["ValueError"]), UnicodeError(), True),
        (Retry.exponential(never_on=[ValueError]), UnicodeError(), False),
        (Retry.exponential(never_on=[ValueError]), KeyError(), True),
        (Retry.exponential(on=[TransientError], never_on=[SlowError]), SlowError(), False),
        (Retry.exponential(on=["builtins.Exception"]), SystemExit(), False),
    ],
)
def test_types_are_matched_along_the_mro(policy: Retry, error: BaseException, expected: bool) -> None:
    assert policy.retries(error) is expected
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Retry).retries(error) is expected


def test_a_class_defined_inside_a_function_is_matched() -> None:
    class LocalError(Exception):
        pass

    assert Retry.exponential(on=[LocalError]).retries(LocalError())


@given(retries)
def test_the_stored_form_gives_the_same_policy_back(policy: Retry) -> None:
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Retry) == policy


def test_the_default_is_stored_as_nothing() -> None:
    assert msgspec.json.encode(Retry()) == b"{}"


def test_a_delay_may_be_nothing_at_all() -> None:
    assert Retry.fixed(timedelta(0)).ceiling_us(3) == Retry.fixed(0.0).ceiling_us(3) == 0
    assert Retry.exponential(5, factor=1).ceiling_us(9) == 5 * SECOND


def test_a_delay_above_the_default_cap_is_taken_at_its_word() -> None:
    assert Retry.fixed(7_200, jitter="none").ceiling_us(1) == 7_200 * SECOND


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("max_attempts", {"max_attempts": 0}),
        ("max_attempts", {"max_attempts": -1}),
        ("max_attempts", {"max_attempts": 10**9}),
        ("max_attempts", {"max_attempts": True}),
        ("max_attempts", {"max_attempts": 2.5}),
        ("base", {"base": math.nan}),
        ("base", {"base": math.inf}),
        ("base", {"base": -1}),
        ("base", {"base": 1e300}),
        ("base", {"base": "5"}),
        ("base", {"base": timedelta(days=-1)}),
        ("cap", {"cap": math.nan}),
        ("base_us", {"base": 10, "cap": 5}),
        ("factor", {"factor": math.nan}),
        ("factor", {"factor": math.inf}),
        ("factor", {"factor": 0.5}),
        ("factor", {"factor": "2"}),
        ("jitter", {"jitter": "some"}),
        ("on", {"on": [3]}),
        ("on", {"on": [int]}),
        ("on", {"on": ["no such type"]}),
        ("on", {"on": ["NoSuchBuiltin"]}),
        ("never_on", {"never_on": 5}),
    ],
)
def test_a_value_without_meaning_is_refused_by_name(option: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(OptionInvalid) as refused:
        Retry.exponential(**arguments)
    assert refused.value.option == option


def test_a_stored_policy_with_a_value_without_meaning_is_refused() -> None:
    with pytest.raises(OptionInvalid, match="max_attempts=0"):
        msgspec.json.decode(b'{"max_attempts":0}', type=Retry)
