"""The MySQL transport keeps the agent contract, on MariaDB or whatever server the run has."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.testing.agents import AgentContract, AgentStore
from tests.contract.mysql_store import MysqlStore

pytestmark = pytest.mark.slow


class TestMysqlAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self, mysql_module_url: str) -> AsyncIterator[AgentStore]:
        store = MysqlStore(mysql_module_url)
        yield store
        await store.close()
        store.dispose()
