"""Loosely: that the next tick of a plain expression is no search. `benchmarks/recurrence.py` measures."""

import time

import pytest

from jobmaster.recurrence import Recurrence, cron

ASKED = 5_000
PER_SECOND = 20_000


@pytest.mark.parametrize(
    "recurrence",
    [cron("*/5 * * * *"), cron("0 9 * * MON-FRI", "Europe/Berlin"), Recurrence.of("every 5 minutes")],
    ids=lambda recurrence: recurrence.expression,
)
def test_the_next_tick_is_computed_twenty_thousand_times_a_second(recurrence: Recurrence) -> None:
    best = 0.0
    for _ in range(3):
        tick_us: int | None = 1_790_000_000_000_000
        began = time.process_time()
        for _ in range(ASKED):
            assert tick_us is not None
            tick_us = recurrence.next_after(tick_us)
        best = max(best, ASKED / (time.process_time() - began))
    assert best > PER_SECOND
