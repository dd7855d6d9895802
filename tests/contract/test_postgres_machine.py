"""Hypothesis plays with the Postgres transport: see `jobmaster.testing.agents.machine`."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import invariant

from jobmaster.contracts.values import LaneStats
from jobmaster.testing.agents.harness import AgentStore
from jobmaster.testing.agents.machine import AgentMachine
from tests.contract.postgres_store import PostgresStore
from tests.sizes import SIZES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_url = ""


@pytest.fixture(scope="module", autouse=True)
def _database(postgres_module_url: str) -> Iterator[None]:
    # Hypothesis makes its machines itself, so the address has to lie where they find it.
    global _url
    _url = postgres_module_url
    yield
    _url = ""


def _counts(lane: LaneStats) -> tuple[int, int, int, int]:
    return lane.ready, lane.delayed, lane.leased, lane.parked


class PostgresMachine(AgentMachine):
    def new_store(self) -> AgentStore:
        self.database = PostgresStore(_url)
        return self.database

    @invariant()
    def lanes_are_counted_right(self) -> None:
        counted = {(lane.lane, *_counts(lane)) for lane in self.run(self.agent.stats())}
        states = ", ".join(f"count(*) FILTER (WHERE st = {st})" for st in range(4))
        present = self.database.execute(f"SELECT lane, {states} FROM {self.database.table('job')} GROUP BY lane")
        assert {lane for lane in counted if any(lane[1:])} == set(present)

    def teardown(self) -> None:
        super().teardown()
        self.database.dispose()


TestPostgresMachine = PostgresMachine.TestCase
TestPostgresMachine.settings = settings(
    max_examples=SIZES.server_examples,
    stateful_step_count=40,
    deadline=None,
    # Explaining a failure traces every line, and takes minutes here.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
