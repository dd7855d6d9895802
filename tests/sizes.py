"""Durations and sizes of the tests, in one place: `short` for every run, `full` for what is promised.

`make test` uses the short ones, `make test-full` (JOBMASTER_TEST_SIZE=full) the full ones.
"""

import os
from dataclasses import dataclass

import pytest


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
    disjoint_jobs: int
    """Jobs for each of two workers that know different handlers."""
    waiting_jobs: int
    """Backlog while back-pressure is sampled."""
    plan_rows: int
    """Rows present when query plans are looked at."""
    examples: int
    """Hypothesis examples of a state machine."""
    server_examples: int
    """The same, where each step is several round trips to a server."""
    master_away_seconds: float
    """How long the master is stopped while work goes on."""
    outage_seconds: float
    """How long a store is down when it is restarted under long jobs."""
    storm_seconds: float
    """How long every connection to a store is ended again and again."""
    lease_seconds: float
    """TTL of a lease where a test waits for one to lapse."""
    every_zone: bool
    """Look at every change of offset in every zone, 1970 to 2037; else at some, in telling zones."""
    zone_changes: int
    """How many changes of a telling zone are looked at."""
    cron_expressions: int
    """Random expressions compared with other computations."""
    failover_seconds: float
    """How long schedules are planned while the leading planner is killed again and again."""
    failover_schedules: int
    """How many of them, half each second and half every five."""
    churn_seconds: float
    """How long workers are started and killed at random."""
    churn_workers: int
    """How many there are at most."""
    held_jobs: int
    """Held on the master while some become due."""
    near_jobs: int
    """How many of them become near within `near_seconds`."""
    near_seconds: float


SHORT = Sizes(
    name="short",
    blocked_loop_seconds=4.0,
    locked_seconds=3.0,
    poison_jobs=400,
    disjoint_jobs=200,
    waiting_jobs=2_000,
    plan_rows=20_000,
    examples=40,
    server_examples=20,
    master_away_seconds=5.0,
    outage_seconds=5.0,
    storm_seconds=5.0,
    lease_seconds=3.0,
    every_zone=False,
    zone_changes=8,
    cron_expressions=600,
    failover_seconds=10.0,
    failover_schedules=40,
    churn_seconds=8.0,
    churn_workers=3,
    held_jobs=5_000,
    near_jobs=1_000,
    near_seconds=4.0,
)

FULL = Sizes(
    name="full",
    blocked_loop_seconds=30.0,
    locked_seconds=10.0,
    poison_jobs=1_000,
    disjoint_jobs=1_000,
    waiting_jobs=10_000,
    plan_rows=1_000_000,
    examples=200,
    server_examples=200,
    master_away_seconds=60.0,
    outage_seconds=20.0,
    storm_seconds=30.0,
    lease_seconds=15.0,
    every_zone=True,
    zone_changes=0,
    cron_expressions=10_000,
    failover_seconds=120.0,
    failover_schedules=200,
    churn_seconds=120.0,
    churn_workers=20,
    held_jobs=1_000_000,
    near_jobs=100_000,
    near_seconds=60.0,
)

SIZES = FULL if os.environ.get("JOBMASTER_TEST_SIZE") == "full" else SHORT

FULL_ONLY = pytest.mark.skipif(SIZES is not FULL, reason="of the full size only: another case shows the same in short")
"""For one more case of a test that takes long."""
