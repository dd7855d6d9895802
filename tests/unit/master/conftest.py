"""What the master's unit tests share: a master on a SQLite file, with the schema copied in."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.sqlite_engine import SqliteEngine
from jobmaster.testing.clock import ManualClock


def sqlite_master(path: Path, *, cluster: str = "test", migrate: bool = True) -> SqlMaster:
    return SqlMaster(SqliteEngine(f"sqlite:///{path}", ManualClock()), cluster, migrate)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "master.db"

    async def migrate() -> None:
        master = sqlite_master(path)
        await master.open()
        await master.close()

    asyncio.run(migrate())
    return path


@pytest_asyncio.fixture
async def master(tmp_path: Path, migrated: Path) -> AsyncIterator[SqlMaster]:
    shutil.copyfile(migrated, tmp_path / "master.db")
    opened = sqlite_master(tmp_path / "master.db")
    await opened.open()
    yield opened
    await opened.close()
