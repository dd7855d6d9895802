"""How long a worker keeps away from a lane that holds nothing it can run."""

from jobmaster_agents.nats.resting import FIRST_SECONDS, LONGEST_SECONDS, Resting

LANE = "default"
MINE = frozenset({"mailer"})


def rest(resting: Resting) -> float:
    """Seconds of the rest that begins now."""
    resting.begin(LANE, MINE, 100.0)
    left = resting.left(frozenset({LANE}), 100.0)
    assert left is not None
    return left


def test_a_rest_holds_for_its_lane_and_handlers_until_its_end() -> None:
    resting = Resting()
    seconds = rest(resting)

    assert resting.rests(LANE, MINE, 100.0)
    assert not resting.rests(LANE, MINE, 100.0 + seconds)
    assert not resting.rests("mail", MINE, 100.0)
    assert not resting.rests(LANE, frozenset({"printer"}), 100.0)
    assert resting.left(frozenset({"mail"}), 100.0) is None
    assert resting.left(frozenset({LANE}), 100.0 + seconds) is None


def test_rests_grow_up_to_a_bound_and_are_drawn() -> None:
    resting = Resting()
    seconds = [rest(resting) for _ in range(200)]

    assert 0.5 * FIRST_SECONDS <= seconds[0] <= 1.5 * FIRST_SECONDS
    assert all(0.5 * LONGEST_SECONDS <= one <= 1.5 * LONGEST_SECONDS for one in seconds[5:])
    assert len(set(seconds)) > 1


def test_something_to_run_ends_a_rest_and_the_growth() -> None:
    resting = Resting()
    for _ in range(5):
        rest(resting)

    resting.end(LANE, MINE)

    assert not resting.rests(LANE, MINE, 100.0)
    assert rest(resting) <= 1.5 * FIRST_SECONDS
