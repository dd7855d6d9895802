"""How a history in parts is cut and folded."""

import pytest

from jobmaster.contracts.entries import EVERYTHING, Expiry
from jobmaster.master.parts import FAR, LEAST_US, Part, cut_at, first_id, next_fold, old, shortest_us, time_us
from jobmaster.model.ids import IdFactory
from jobmaster.model.states import JobState

DAY = 86_400_000_000
NOW = 1_800_000_000_000_000


def parts(*days: float) -> list[Part]:
    """The first, those between, and the one ahead, by the days from now at which each ends."""
    ends = [first_id(NOW + round(day * DAY)) for day in days]
    return [Part(since, until) for since, until in zip([None, *ends], [*ends, FAR], strict=True)]


def test_an_id_tells_its_time() -> None:
    job_id = IdFactory(now_ms=lambda: NOW // 1_000).new()
    assert time_us(job_id) == time_us(first_id(NOW + 999)) == NOW
    assert first_id(NOW) < job_id < first_id(NOW + 1_000) < FAR


@pytest.mark.parametrize(
    ("ahead_days", "expected_days"),
    [(-400, 1), (-0.1, 1), (0.0, 1), (0.4, 1.4), (0.6, None), (3, None)],
)
def test_the_part_ahead_is_ended_in_time(ahead_days: float, expected_days: float | None) -> None:
    expected = None if expected_days is None else first_id(NOW + round(expected_days * DAY))
    assert cut_at(parts(ahead_days), NOW, 10 * DAY) == expected


def test_parts_are_never_narrower_than_an_hour() -> None:
    assert cut_at(parts(0), NOW, 1) == first_id(NOW + LEAST_US)


def test_old_is_a_part_whose_last_second_is() -> None:
    found = parts(-12, -11, -10, -9.9, 1)
    assert old(found, NOW, 10 * DAY) == found[:3]
    assert old(found[:1], NOW, 10 * DAY) == []


def test_the_shortest_time_counts_for_jobs_alone() -> None:
    assert shortest_us([(EVERYTHING, 5), (Expiry(handler="a"), 3), (Expiry(states=frozenset()), 1)]) == 3
    assert shortest_us([(Expiry(states=frozenset()), 1)]) is None
    assert shortest_us([(Expiry(states=frozenset({JobState.FAILED})), 7)]) == 7


def test_old_parts_are_joined_to_the_first_one_after_another() -> None:
    found = parts(-14, -13, -12, -11)[:-1]
    assert next_fold(found[:1], {}) is None
    assert next_fold([], {}) is None
    assert next_fold(found, {}) == (None, found[1].until)
    joined = [Part(None, found[1].until), *found[2:]]
    assert next_fold(joined, {(None, found[1].until): True}) == (None, found[2].until)


def test_a_part_of_which_too_many_stay_stands_alone_and_the_next_are_joined_to_it() -> None:
    first, second, third, fourth = parts(-14, -13, -12, -11)[:-1]
    answers = {(first.since, second.until): False}
    assert next_fold([first, second, third], answers) == (second.since, second.until)
    answers[second.since, second.until] = True
    assert next_fold([first, second, third], answers) == (second.since, third.until)
    answers[second.since, third.until] = False
    assert next_fold([first, second, third, fourth], answers) == (third.since, third.until)
    answers[third.since, third.until] = False
    assert next_fold([first, second, third, fourth], answers) == (third.since, fourth.until)
    answers |= {(third.since, fourth.until): False, (fourth.since, fourth.until): False}
    assert next_fold([first, second, third, fourth], answers) is None
