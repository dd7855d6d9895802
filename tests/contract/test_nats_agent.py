"""The NATS transport keeps the agent contract."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.testing.agents import AgentContract, AgentStore
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint

pytestmark = pytest.mark.slow


class TestNatsAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self, nats_server: Endpoint) -> AsyncIterator[AgentStore]:
        store = NatsStore(nats_server)
        yield store
        await store.close()
        await store.dispose()
