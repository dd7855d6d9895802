"""Durations and sizes of the tests, in one place: `short` for every run, `full` for what is promised.

`make test` uses the short ones, `make test-full` (JOBMASTER_TEST_SIZE=full) the full ones.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Seconds and counts."""

    name: str
    blocked_loop_seconds: float
    """How long a handler blocks the event loop."""
    locked_seconds: float
    """How long another process holds the database file."""
    poison_jobs: int
    """Jobs of which one kills its process."""
    waiting_jobs: int
    """Backlog while back-pressure is sampled."""
    plan_rows: int
    """Rows present when query plans are looked at."""
    examples: int
    """Hypothesis examples of a state machine."""


SHORT = Sizes(
    name="short",
    blocked_loop_seconds=4.0,
    locked_seconds=3.0,
    poison_jobs=200,
    waiting_jobs=2_000,
    plan_rows=20_000,
    examples=40,
)

FULL = Sizes(
    name="full",
    blocked_loop_seconds=30.0,
    locked_seconds=10.0,
    poison_jobs=1_000,
    waiting_jobs=10_000,
    plan_rows=1_000_000,
    examples=200,
)

SIZES = FULL if os.environ.get("JOBMASTER_TEST_SIZE") == "full" else SHORT
