"""The SQLite transport keeps the agent contract."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from jobmaster.testing.agents import AgentContract, AgentStore
from tests.contract.sqlite_store import SqliteStore


class TestSqliteAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AgentStore]:
        store = SqliteStore(tmp_path, monkeypatch)
        yield store
        await store.close()
