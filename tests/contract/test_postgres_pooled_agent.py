"""The Postgres transport keeps the agent contract through pgbouncer, which gives each transaction another session."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from jobmaster.testing.agents import AgentContract, AgentStore
from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.connection import SESSION
from tests.contract.postgres_store import PostgresStore
from tests.servers import Pgbouncer, Unavailable
from tests.servers.fixtures import missing

pytestmark = pytest.mark.slow

FEW = {"default_pool_size": "4"}
"""Sessions of the server, fewer than a case opens connections: it gets another one each time."""


@pytest.fixture(scope="module")
def pgbouncer(postgres_module_url: str) -> Iterator[Pgbouncer]:
    pooler = Pgbouncer(postgres_module_url, settings=FEW)
    try:
        pooler.start()
    except Unavailable as error:
        missing(str(error))
    yield pooler
    pooler.remove()


class TestPooledPostgresAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self, postgres_module_url: str, pgbouncer: Pgbouncer) -> AsyncIterator[AgentStore]:
        store = PostgresStore(postgres_module_url, through=pgbouncer.url_of(postgres_module_url))
        yield store
        await store.close()
        store.dispose()


@pytest.mark.asyncio
@pytest.mark.parametrize("lenient", [False, True])
async def test_a_pooler_is_noticed_and_told(postgres_module_url: str, lenient: bool) -> None:
    # One that takes settings without keeping them gives itself away only by the session's number.
    settings = {"ignore_startup_parameters": ",".join((*SESSION, "extra_float_digits"))} if lenient else {}
    try:
        with Pgbouncer(postgres_module_url, settings=settings) as pooler:
            agent = PostgresAgent(pooler.url_of(postgres_module_url), cluster="pooled", name="transport-1")
            report = await agent.open()
            await agent.close()
    except Unavailable as error:
        missing(str(error))

    assert [finding for finding in report.findings if "pooler" in finding and "polling" in finding]
    assert not agent.traits.pushes_wakeups
    direct = PostgresAgent(postgres_module_url, cluster="pooled", name="transport-1")
    report = await direct.open()
    await direct.close()
    assert direct.traits.pushes_wakeups
    assert not [finding for finding in report.findings if "pooler" in finding]
