"""Which agent a job goes to, and whether it goes there now."""

from collections import Counter
from random import Random

import pytest

from jobmaster.placement import Destination, choose_agent, destination

THRESHOLD = 600_000_000


@pytest.mark.parametrize(
    ("due_us", "through_master", "expected"),
    [
        (0, False, Destination.AGENT),
        (THRESHOLD, False, Destination.AGENT),
        (THRESHOLD + 1, False, Destination.HELD),
        (-5, True, Destination.HAND_OFF),
        (THRESHOLD + 1, True, Destination.HELD),
    ],
)
def test_the_threshold_and_the_durability_decide_where_a_job_is_written_first(
    due_us: int, through_master: bool, expected: Destination
) -> None:
    assert destination(due_us, 0, THRESHOLD, through_master) is expected


def test_an_only_candidate_is_taken_without_a_draw() -> None:
    assert choose_agent(["a"], {}, Random(1)) == "a"
    assert choose_agent(["a"], {"b": 0}, Random(1)) == "a"


def test_without_a_candidate_there_is_no_agent() -> None:
    assert choose_agent([], {"a": 0}, Random(1)) is None


def test_of_two_the_one_with_less_to_do_is_taken() -> None:
    rng = Random(1)
    assert {choose_agent(["a", "b"], {"a": 10, "b": 9}, rng) for _ in range(50)} == {"b"}


def test_of_many_the_fullest_is_never_taken_and_the_others_share() -> None:
    rng = Random(1)
    drawn = Counter(choose_agent(["a", "b", "c", "d"], {"a": 0, "b": 1, "c": 2, "d": 3}, rng) for _ in range(1_000))
    assert drawn["d"] == 0
    assert drawn["a"] > drawn["b"] > drawn["c"] > 100


def test_an_agent_that_did_not_answer_is_passed_over_unless_none_did() -> None:
    rng = Random(1)
    assert {choose_agent(["a", "b", "c"], {"c": 1_000_000}, rng) for _ in range(50)} == {"c"}
    assert {choose_agent(["a", "b"], {}, rng) for _ in range(50)} == {"a", "b"}
