"""The SQL master on database servers passes the master contract.

Runs where `JOBMASTER_TEST_POSTGRES_URL` or `JOBMASTER_TEST_MYSQL_URL` names a throw-away database.
"""

import os
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import create_async_engine

from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import OutboxRecord
from jobmaster.master import open_master
from jobmaster.master.sql.bulk import placeholders
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.server_engine import ServerEngine
from jobmaster.master.sql.tables import build_tables
from jobmaster.model.ids import new_id
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters import MasterContract, MasterHarness
from tests.outbox_table import COLUMNS, outbox_row, server_outbox

URLS = {name: os.environ.get(f"JOBMASTER_TEST_{name}_URL", "") for name in ("POSTGRES", "MYSQL")}


class ServerHarness:
    restartable = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._cluster = f"test-{new_id()[-12:]}"
        self._opened: list[SqlMaster] = []
        self._tables = [*build_tables(table_prefix(self._cluster)).metadata.tables]
        self._outbox = f"{table_prefix(self._cluster, 'transport-1')}outbox"

    async def open(self) -> SqlMaster:
        master = open_master(self._url, cluster=self._cluster, clock=ManualClock())
        assert isinstance(master, SqlMaster)
        await master.open()
        self._opened.append(master)
        return master

    async def restart(self) -> SqlMaster:
        for master in self._opened:
            await master.close()
        return await self.open()

    async def advance(self, seconds: float) -> None:
        pytest.skip(f"the server's clock does not jump {seconds} s")

    async def outbox(self, records: Sequence[OutboxRecord]) -> str | None:
        engine = ServerEngine(self._url)
        await engine.open()
        try:
            await engine.write(lambda connection: server_outbox(self._outbox).create(connection, checkfirst=True))
            for record in records:
                row = outbox_row(record)
                await engine.write(
                    lambda connection, row=row: (
                        connection.exec_driver_sql(  # type: ignore[misc]  # a bound default
                            f"INSERT INTO {self._outbox} ({', '.join(COLUMNS)}) "
                            f"VALUES {placeholders(connection.dialect.paramstyle, 1, len(COLUMNS))}",
                            row,
                        ).rowcount
                    )
                )
        finally:
            await engine.close()
        return self._outbox

    async def close(self) -> None:
        for master in self._opened:
            await master.close()
        engine = create_async_engine(ServerEngine(self._url)._url)
        async with engine.begin() as connection:
            for name in (*self._tables, f"{table_prefix(self._cluster)}revision", self._outbox):
                await connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
        await engine.dispose()


@pytest.mark.skipif(not URLS["POSTGRES"], reason="JOBMASTER_TEST_POSTGRES_URL is not set")
class TestPostgresMaster(MasterContract):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[MasterHarness]:
        harness = ServerHarness(URLS["POSTGRES"])
        yield harness
        await harness.close()


@pytest.mark.skipif(not URLS["MYSQL"], reason="JOBMASTER_TEST_MYSQL_URL is not set")
class TestMysqlMaster(MasterContract):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[MasterHarness]:
        harness = ServerHarness(URLS["MYSQL"])
        yield harness
        await harness.close()
