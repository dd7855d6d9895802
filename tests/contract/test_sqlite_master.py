"""The SQL master on SQLite passes the master contract."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import OutboxRecord
from jobmaster.master import open_master
from jobmaster.sqlite import open_database
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters import MasterContract, MasterHarness
from tests.outbox_table import OUTBOX, create_outbox, fill_outbox


class SqliteHarness:
    restartable = True

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._clock = ManualClock()
        self._opened: list[MasterStore] = []

    async def open(self) -> MasterStore:
        master = open_master(f"sqlite:///{self._path}", cluster="test", clock=self._clock)
        await master.open()
        self._opened.append(master)
        return master

    async def restart(self) -> MasterStore:
        await self.close()
        return await self.open()

    async def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def outbox(self, records: Sequence[OutboxRecord]) -> str | None:
        database = open_database(self._path)
        try:
            await database.write(create_outbox)
            await database.write(lambda connection: fill_outbox(connection, records))
        finally:
            database.close()
        return OUTBOX

    async def close(self) -> None:
        for master in self._opened:
            await master.close()
        self._opened.clear()


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema and nothing else: migrating anew for every test would take most of the time."""
    path = tmp_path_factory.mktemp("migrated") / "master.db"

    async def migrate() -> None:
        harness = SqliteHarness(path)
        await harness.open()
        await harness.close()

    asyncio.run(migrate())
    return path


class TestSqliteMaster(MasterContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path, migrated: Path) -> AsyncIterator[MasterHarness]:
        shutil.copyfile(migrated, tmp_path / "master.db")
        harness = SqliteHarness(tmp_path / "master.db")
        yield harness
        await harness.close()
