"""The SQLite transport keeps the agent contract."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest_asyncio

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.namespace import table_prefix
from jobmaster.testing.agents import AgentContract, AgentStore
from jobmaster.testing.clock import ManualClock
from jobmaster_agents.sqlite import SqliteAgent


class SqliteStore(AgentStore):
    """A file, on a clock that only tests move."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.clock = ManualClock()
        self._file = folder / "jobs.db"

    def agent(self, name: str | None = None, cluster: str | None = None, clock: Clock | None = None) -> SqliteAgent:
        return SqliteAgent(
            f"sqlite:///{self._file}",
            cluster=cluster or self.cluster,
            name=name or self.name,
            clock=clock or self.clock,
        )

    async def open(
        self, *, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> AgentTransport:
        agent = self.agent(name, cluster, clock)
        await agent.open()
        return self.keep(agent)

    async def rewind(self) -> AbstractAsyncContextManager[None]:
        kept = self._file.with_suffix(".kept")
        with contextlib.closing(sqlite3.connect(self._file)) as connection:
            connection.execute("VACUUM INTO ?", (str(kept),))
        return self._restored(kept)

    @contextlib.asynccontextmanager
    async def _restored(self, kept: Path) -> AsyncIterator[None]:
        yield
        await self.close()
        await asyncio.to_thread(shutil.copyfile, kept, self._file)

    async def corrupt(self, job_id: str) -> None:
        connection = sqlite3.connect(self._file)
        job = f"{table_prefix(self.cluster, self.name)}job"
        connection.execute(f"UPDATE {job} SET data = ?, policy = ? WHERE id = ?", (b"\xff{\x00", b"}{", job_id))
        connection.commit()
        connection.close()


class TestSqliteAgent(AgentContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[AgentStore]:
        store = SqliteStore(tmp_path)
        yield store
        await store.close()
