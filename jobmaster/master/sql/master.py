"""SqlMaster: its parts put together, opened and closed."""

import secrets
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, select

from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import HistoryTables, ProbeReport
from jobmaster.master.migrations import HEAD
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.filling import filling_of
from jobmaster.master.sql.history import SqlHistory
from jobmaster.master.sql.jobs import SqlJobs
from jobmaster.master.sql.move import SqlMove
from jobmaster.master.sql.operations import SqlOperations
from jobmaster.master.sql.planning import SqlPlanning
from jobmaster.master.sql.schedules import SqlSchedules
from jobmaster.master.sql.schema import revision, unknown, upgrade
from jobmaster.master.sql.seal import seal_of
from jobmaster.master.sql.tables import Tables, build_tables
from jobmaster.master.sql.topology import SqlTopology
from jobmaster.model.errors import MasterUnavailable, SchemaOutdated

T = TypeVar("T")


class SqlMaster(SqlJobs, SqlMove, SqlHistory, SqlTopology, SqlSchedules, SqlPlanning, SqlOperations):
    """One cluster's master in a SQL database. With `migrate`, opening brings the schema up."""

    def __init__(self, engine: Engine, cluster: str, migrate: bool = True) -> None:
        super().__init__(engine, build_tables(table_prefix(cluster)))
        self.database_key: str | None = engine.key
        t = self._tables
        self.history_tables: HistoryTables | None = HistoryTables(t.job.name, t.history.name, t.run.name)
        self.remote = engine.remote
        self._migrate = migrate
        self.filling = False
        """Whether this is who brings over what another master had, until when nobody else may open it."""

    async def open(self) -> ProbeReport:
        if not await self._engine.open(create=self._migrate):
            raise SchemaOutdated(self._engine.store, None, HEAD)
        try:
            await self._engine.check()
            found = await self._read(lambda connection: revision(connection, self._tables.prefix))
            if found != HEAD:
                await self._bring_up(found)
            elif await self._read(self._incarnation, at_once=True) is None:
                # Another process brought the schema up, and has not come to this yet, or was cut short.
                await self._write(self._name_incarnation)
            if not self.filling:
                await self._refuse_unfinished()
            return await self._report()
        except BaseException:
            await self.close()
            raise

    async def _refuse_unfinished(self) -> None:
        filling = await self._read(lambda connection: filling_of(connection, self._tables), at_once=True)
        if filling is not None:
            raise MasterUnavailable(
                f"{self._engine.store}: it does not hold yet all of what {filling.source} had",
                "run the same `jobmaster master move` again, which completes it",
            )

    @property
    def engine(self) -> Engine:
        """For who moves it."""
        return self._engine

    @property
    def tables(self) -> Tables:
        """For who moves it."""
        return self._tables

    async def part(self, read: Callable[[Connection, Tables], T]) -> T:
        """What a function reads of these tables, at one moment."""
        return await self._read(lambda connection: read(connection, self._tables))

    async def change(self, write: Callable[[Connection, Tables], T]) -> T:
        """What a function writes to these tables, in one transaction."""
        return await self._write(lambda connection: write(connection, self._tables))

    async def close(self) -> None:
        await self._engine.close()

    async def probe(self) -> ProbeReport:
        await self._engine.check()
        return await self._report()

    async def _report(self) -> ProbeReport:
        incarnation = await self._read(self._incarnation, at_once=True)
        assert incarnation is not None, "named when the schema was brought up"
        seal = await self._read(lambda connection: seal_of(connection, self._tables), at_once=True)
        return ProbeReport(
            incarnation=incarnation,
            findings=(*self._engine.findings(), *((seal.words,) if seal is not None else ())),
            facts=self._engine.facts() | {"schema": HEAD},
        )

    async def store_now_us(self) -> int:
        return await self._read(self._engine.now_us, at_once=True)

    async def _bring_up(self, found: str | None) -> None:
        prefix, store = self._tables.prefix, self._engine.store
        if not self._migrate:
            raise unknown(store, found) if found is not None and found > HEAD else SchemaOutdated(store, found, HEAD)
        await self._engine.change_schema(lambda connection: upgrade(connection, prefix, store))
        await self._write(self._name_incarnation)

    def _name_incarnation(self, connection: Connection) -> None:
        once = BulkInsert(self._tables.meta, ("name", "value"), key=("name",))
        once.run(connection, [("incarnation", secrets.token_hex(16))])

    def _incarnation(self, connection: Connection) -> str | None:
        meta = self._tables.meta.c
        value: str | None = connection.execute(select(meta.value).where(meta.name == "incarnation")).scalar()
        return value
