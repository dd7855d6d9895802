"""The journal transport keeps the agent contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from jobmaster_journal import JournalAgent

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.model.errors import ConfigurationError
from jobmaster.testing.agents import AgentContract, AgentStore
from jobmaster.testing.clock import ManualClock


class JournalStores(AgentStore):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.folder = folder

    async def open(
        self, *, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> AgentTransport:
        agent = JournalAgent(
            f"journal://{self.folder}",
            cluster=cluster or self.cluster,
            name=name or self.name,
            clock=clock or self.clock,
        )
        await agent.open()
        return self.keep(agent)


class TestJournalAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[AgentStore]:
        store = JournalStores(tmp_path)
        yield store
        await store.close()


def test_a_url_without_a_folder_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="journal:///folder"):
        JournalAgent("journal://", cluster="c", name="a")
