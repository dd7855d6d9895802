"""The file that the contract suite and the state machine play with, and the faults it can be made to show."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, cast

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.namespace import table_prefix
from jobmaster.model.errors import Indeterminate, Refused
from jobmaster.sqlite import Database
from jobmaster.testing.agents import AgentStore
from jobmaster.testing.clock import ManualClock
from jobmaster_agents.sqlite import SqliteAgent
from tests.unit.sqlite.plans import complaints, fill


class SqliteStore(AgentStore):
    """A file, on a clock that only tests move."""

    claim_p99_seconds = 0.5
    """Each claim waits for the disk, which others use too."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._patch = patch
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

    async def unsafe(self) -> AgentTransport:
        # No setting survives in the file that `open` would not put right; where it lies is what can be wrong.
        self._patch.setattr("jobmaster.sqlite.location._file_system", lambda path: "nfs4")
        return self.agent()

    async def failing(self, verb: str, point: str) -> AgentTransport:
        agent = self.agent()
        await agent.open()
        store = agent.verbs.store
        store.database = cast("Database", Broken(store.database, point))
        return self.keep(agent)

    async def plans(self, verb: str) -> list[str]:
        agent = self.agent(name="transport-9")
        await agent.open()
        self.keep(agent)
        return await complaints(agent, verb, await fill(agent, 2_000))


class Broken:
    """A database that stops answering at its next write: before, during, or after the transaction."""

    def __init__(self, under: Database, point: str) -> None:
        self._under = under
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)

    async def write(self, fn: Callable[[sqlite3.Connection], Any], **hooks: Any) -> Any:
        if self._point == "before":
            raise Refused("the connection was lost before the call")
        if self._point == "during":

            def interrupted(connection: sqlite3.Connection) -> Any:
                fn(connection)
                raise sqlite3.OperationalError("the connection was lost during the call")

            with pytest.raises(sqlite3.OperationalError):
                await self._under.write(interrupted)
        else:
            await self._under.write(fn, **hooks)
        raise Indeterminate("the connection was lost before the answer came")
