"""Noticing a clock that was set."""

import pytest

from jobmaster.coordination.clock_guard import ClockGuard
from jobmaster.testing.clock import ManualClock


def test_time_that_simply_passes_is_no_jump() -> None:
    clock = ManualClock()
    guard = ClockGuard(clock)
    guard.elapsed(clock.wall_us())
    for seconds in (0.1, 10, 100_000):
        clock.advance(seconds)
        passed, jumped = guard.elapsed(clock.wall_us())
        assert passed == pytest.approx(seconds)
        assert not jumped


@pytest.mark.parametrize("step", [-3_600, -6, 6, 3_600])
def test_a_clock_that_was_set_is_a_jump_once(step: float) -> None:
    clock = ManualClock()
    guard = ClockGuard(clock)
    guard.elapsed(clock.wall_us())
    clock.advance(1)
    clock.jump_wall(step)
    assert guard.elapsed(clock.wall_us())[1] is True
    clock.advance(1)
    assert guard.elapsed(clock.wall_us())[1] is False


def test_slewing_within_five_seconds_or_a_twentieth_is_no_jump() -> None:
    clock = ManualClock()
    guard = ClockGuard(clock)
    guard.elapsed(clock.wall_us())
    clock.jump_wall(4)
    assert guard.elapsed(clock.wall_us())[1] is False
    clock.advance(1_000)
    clock.jump_wall(45)
    assert guard.elapsed(clock.wall_us())[1] is False
    clock.advance(1_000)
    clock.jump_wall(55)
    assert guard.elapsed(clock.wall_us())[1] is True
