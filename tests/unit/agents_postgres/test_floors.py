"""Where a claim begins: at the beginning often enough, and behind what is dead the rest of the time."""

import pytest

from jobmaster_agents.postgres import sparing
from jobmaster_agents.postgres.claiming import FLOOR_SECONDS, Floors
from jobmaster_agents.postgres.sparing import MOST_SECONDS, QUICK_SECONDS, TIMES, Sparing

SLOW = 4 * QUICK_SECONDS
LANE = "default"
WHOLE = frozenset({LANE})


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(sparing, "time", time)
    return time


def looked(floors: Floors, firsts: dict[int, int], seconds: float = 0.01, horizon: int = 0) -> None:
    """Two claims from the beginning got these first places of each priority: one may be held up by accident."""
    for _ in range(2):
        floors.look(WHOLE)
        floors.took(WHOLE, seconds)
    floors.learn({(LANE, rank): place for rank, place in firsts.items()}, WHOLE, horizon)


def test_what_was_never_looked_at_is_looked_at_from_the_beginning(time: Time) -> None:
    assert Floors().of(LANE) is None


def test_a_line_is_looked_at_from_the_beginning_once_a_second(time: Time) -> None:
    floors = Floors()
    looked(floors, {0: 7})

    assert floors.of(LANE) == [7, 0, 0, 0, 0]
    floors.learn({(LANE, 0): 9}, frozenset())
    assert floors.of(LANE) == [9, 0, 0, 0, 0]
    time.now += FLOOR_SECONDS + 0.01
    assert floors.of(LANE) is None


def test_priorities_that_gave_nothing_are_passed_over_too_and_later_ones_are_not(time: Time) -> None:
    floors = Floors()
    looked(floors, {2: 7}, horizon=50)
    # A put that drew its place before that look may have been committed after it.
    assert floors.of(LANE) == [0, 0, 7, 0, 0]

    looked(floors, {2: 8}, horizon=90)

    assert floors.of(LANE) == [50, 50, 8, 0, 0]


def test_a_job_that_came_back_has_its_line_looked_at(time: Time) -> None:
    floors = Floors()
    looked(floors, {0: 7})

    floors.drop(LANE)

    assert floors.of(LANE) is None


def test_looks_that_take_long_are_taken_seldom_but_are_taken(time: Time) -> None:
    floors = Floors()
    looked(floors, {0: 7}, seconds=1.5)

    floors.drop(LANE)
    assert not floors.may_look(LANE)
    time.now += TIMES * 1.5 - 1
    assert floors.of(LANE) == [7, 0, 0, 0, 0]
    time.now += 2
    assert floors.of(LANE) is None
    looked(floors, {0: 8}, seconds=100)
    time.now += MOST_SECONDS + 0.01
    assert floors.of(LANE) is None
    looked(floors, {0: 9}, seconds=QUICK_SECONDS)
    assert floors.may_look(LANE)


def test_a_job_that_comes_back_during_a_look_has_another_one_taken(time: Time) -> None:
    floors = Floors()
    looked(floors, {0: 7})
    time.now += FLOOR_SECONDS + 0.01

    floors.look(WHOLE)
    floors.drop(LANE)
    floors.took(WHOLE, 0.01)
    floors.learn({(LANE, 0): 8}, WHOLE)

    assert floors.of(LANE) is None


def test_a_look_that_failed_is_not_all_that_is_tried(time: Time) -> None:
    floors = Floors()
    looked(floors, {0: 7})
    time.now += FLOOR_SECONDS + 0.01

    floors.look(WHOLE)

    assert floors.of(LANE) == [7, 0, 0, 0, 0]


def test_one_slow_look_is_an_accident_and_two_are_many_dead_entries(time: Time) -> None:
    looks = Sparing()
    for seconds, due in ((0.01, True), (SLOW, True), (0.01, True), (SLOW, True), (SLOW, False), (0.01, True)):
        with looks.look():
            time.now += seconds
        assert looks.due() is due, seconds


def test_a_look_of_unknown_length_changes_nothing_of_what_is_known(time: Time) -> None:
    looks = Sparing()
    for _ in range(2):
        with looks.look():
            time.now += SLOW
    time.now += TIMES * SLOW
    assert looks.due()

    looks.begin()

    assert not looks.due()
    assert Sparing().due()


def test_a_look_that_raises_is_counted_as_taken_and_not_as_quick(time: Time) -> None:
    looks = Sparing()
    for _ in range(2):
        with looks.look():
            time.now += SLOW
    time.now += TIMES * SLOW

    with pytest.raises(OSError, match="gone"), looks.look():
        raise OSError("gone")

    assert not looks.due()
    looks.forget()
    assert looks.due()
