"""The SQL master on database servers passes the master contract."""

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

pytestmark = pytest.mark.slow

LONGEST_WAIT = 3.0
"""What a test on a server's own clock may wait for, in seconds."""


class ServerHarness:
    """One cluster's tables in a database; each test finds them empty. Making them anew would take most of the time."""

    restartable = True

    def __init__(self, url: str, cluster: str) -> None:
        self._url = url
        self._cluster = cluster
        self._opened: list[SqlMaster] = []
        self._tables = build_tables(table_prefix(cluster))
        self._outbox = f"{table_prefix(cluster, 'transport-1')}outbox"
        self._ahead_us = 0

    async def open(self) -> SqlMaster:
        master = open_master(self._url, cluster=self._cluster, clock=ManualClock())
        assert isinstance(master, SqlMaster)
        # A server's clock can't be set, but what the master takes for it can.
        now_us = master._engine.now_us
        master._engine.now_us = lambda connection: now_us(connection) + self._ahead_us  # type: ignore[method-assign]
        await master.open()
        self._opened.append(master)
        return master

    async def restart(self) -> SqlMaster:
        for master in self._opened:
            await master.close()
        return await self.open()

    async def advance(self, seconds: float) -> None:
        self._ahead_us += round(seconds * 1_000_000)

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
            for name in self._tables.metadata.tables:
                if name != self._tables.meta.name:
                    await connection.exec_driver_sql(f"DELETE FROM {name}")
            await connection.exec_driver_sql(f"DROP TABLE IF EXISTS {self._outbox}")
        await engine.dispose()


@pytest.fixture(scope="module")
def cluster() -> str:
    return f"test-{new_id()[-12:]}"


class TestPostgresMaster(MasterContract):
    @pytest_asyncio.fixture
    async def store(self, postgres_module_url: str, cluster: str) -> AsyncIterator[MasterHarness]:
        harness = ServerHarness(postgres_module_url, cluster)
        yield harness
        await harness.close()


class TestMysqlMaster(MasterContract):
    @pytest_asyncio.fixture
    async def store(self, mysql_module_url: str, cluster: str) -> AsyncIterator[MasterHarness]:
        harness = ServerHarness(mysql_module_url, cluster)
        yield harness
        await harness.close()
