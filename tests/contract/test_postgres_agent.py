"""The Postgres transport keeps the agent contract."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.testing.agents import AgentContract, AgentStore
from tests.contract.postgres_store import PostgresStore

pytestmark = pytest.mark.slow


class TestPostgresAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self, postgres_module_url: str) -> AsyncIterator[AgentStore]:
        store = PostgresStore(postgres_module_url)
        yield store
        await store.close()
        store.dispose()
