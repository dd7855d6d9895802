"""The memory transport keeps the agent contract."""

from collections.abc import AsyncIterator

import pytest_asyncio

from jobmaster.testing.agents import AgentContract, AgentStore
from tests.contract.memory_store import MemoryStore


class TestMemoryAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[AgentStore]:
        store = MemoryStore()
        yield store
        await store.close()
