"""SqlMaster: its parts put together, opened and closed."""

import secrets

from sqlalchemy import Connection, select

from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import ProbeReport
from jobmaster.master.migrations import HEAD
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.history import SqlHistory
from jobmaster.master.sql.jobs import SqlJobs
from jobmaster.master.sql.move import SqlMove
from jobmaster.master.sql.schedules import SqlSchedules
from jobmaster.master.sql.schema import revision, unknown, upgrade
from jobmaster.master.sql.tables import build_tables
from jobmaster.master.sql.topology import SqlTopology
from jobmaster.model.errors import SchemaOutdated


class SqlMaster(SqlJobs, SqlMove, SqlHistory, SqlTopology, SqlSchedules):
    """One cluster's master in a SQL database. With `migrate`, opening brings the schema up."""

    def __init__(self, engine: Engine, cluster: str, migrate: bool = True) -> None:
        super().__init__(engine, build_tables(table_prefix(cluster)))
        self.database_key: str | None = engine.key
        self._migrate = migrate

    async def open(self) -> ProbeReport:
        if not await self._engine.open(create=self._migrate):
            raise SchemaOutdated(self._engine.store, None, HEAD)
        try:
            found = await self._read(lambda connection: revision(connection, self._tables.prefix))
            if found != HEAD:
                await self._bring_up(found)
            return await self.probe()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._engine.close()

    async def probe(self) -> ProbeReport:
        incarnation = await self._read(self._incarnation)
        return ProbeReport(
            incarnation=incarnation,
            findings=self._engine.findings(),
            facts=self._engine.facts() | {"schema": HEAD},
        )

    async def store_now_us(self) -> int:
        return await self._read(self._engine.now_us)

    async def _bring_up(self, found: str | None) -> None:
        prefix, store = self._tables.prefix, self._engine.store
        if not self._migrate:
            raise unknown(store, found) if found is not None and found > HEAD else SchemaOutdated(store, found, HEAD)
        await self._write(lambda connection: upgrade(connection, prefix, store))
        await self._write(self._name_incarnation)

    def _name_incarnation(self, connection: Connection) -> None:
        once = BulkInsert(self._tables.meta, ("name", "value"), key=("name",))
        once.run(connection, [("incarnation", secrets.token_hex(16))])

    def _incarnation(self, connection: Connection) -> str:
        meta = self._tables.meta.c
        value: str = connection.execute(select(meta.value).where(meta.name == "incarnation")).scalar_one()
        return value
