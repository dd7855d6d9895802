"""The memory transport keeps the agent contract."""

from collections.abc import AsyncIterator

import pytest_asyncio

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.testing.agents import AgentContract, AgentStore
from jobmaster.testing.clock import ManualClock
from jobmaster_agents.memory import MemoryAgent


class MemoryStore(AgentStore):
    """A store of this process, on a clock that only tests move."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()

    async def open(
        self, *, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> AgentTransport:
        agent = MemoryAgent(
            "memory://contract", cluster=cluster or self.cluster, name=name or self.name, clock=clock or self.clock
        )
        await agent.open()
        return self.keep(agent)


class TestMemoryAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[AgentStore]:
        store = MemoryStore()
        yield store
        await store.close()
