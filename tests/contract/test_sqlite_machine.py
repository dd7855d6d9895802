"""Hypothesis plays with the SQLite transport: see `jobmaster.testing.agents.machine`."""

import contextlib
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import invariant

from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import LaneStats
from jobmaster.testing.agents.harness import AgentStore
from jobmaster.testing.agents.machine import AgentMachine
from tests.contract.sqlite_store import SqliteStore
from tests.sizes import SIZES


def _counts(lane: LaneStats) -> tuple[int, int, int, int]:
    return lane.ready, lane.delayed, lane.leased, lane.parked


class SqliteMachine(AgentMachine):
    def new_store(self) -> AgentStore:
        self.folder = TemporaryDirectory()
        return SqliteStore(Path(self.folder.name), pytest.MonkeyPatch())

    @invariant()
    def lanes_are_counted_right(self) -> None:
        counted = {(lane.lane, *_counts(lane)) for lane in self.run(self.agent.stats())}
        with contextlib.closing(sqlite3.connect(f"{self.folder.name}/jobs.db")) as connection:
            job = f"{table_prefix(self.store.cluster, self.store.name)}job"
            present = connection.execute(
                f"SELECT lane, sum(st = 0), sum(st = 1), sum(st = 2), sum(st = 3) FROM {job} GROUP BY lane"
            ).fetchall()
        assert {lane for lane in counted if any(lane[1:])} == set(present)

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=SIZES.examples,
    stateful_step_count=40,
    deadline=None,
    # Explaining a failure traces every line, and takes minutes here.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
