"""Definitions, agents and workers, in SQL."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import astuple, replace
from sqlalchemy import Connection, delete, select

from jobmaster.contracts.entries import AgentEntry, DefinitionEntry
from jobmaster.contracts.values import WorkerCard
from jobmaster.master.rules import entered
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.tables import Tables

_DEFINITION = DefinitionEntry.__struct_fields__
_AGENT = AgentEntry.__struct_fields__
_cards = msgspec.json.Decoder(WorkerCard)


class SqlTopology(SqlPart):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._define = BulkInsert(tables.definition, _DEFINITION, key=("name",), replacing=True)
        self._enter = BulkInsert(tables.agent, _AGENT, key=("name",), replacing=True)
        self._beat = BulkInsert(tables.worker, ("id", "agent", "beat_us", "card"), key=("id",), replacing=True)

    async def define(self, definitions: Sequence[DefinitionEntry]) -> None:
        latest = {entry.name: entry for entry in definitions}
        rows = [astuple(entry) for _, entry in sorted(latest.items())]
        if rows:
            await self._write(lambda connection: self._define.run(connection, rows))

    async def definitions(self) -> list[DefinitionEntry]:
        table = self._tables.definition
        query = select(table).order_by(table.c.name)
        return await self._read(
            lambda connection: [DefinitionEntry(**row) for row in connection.execute(query).mappings()]
        )

    async def enter_agent(self, entry: AgentEntry) -> AgentEntry:
        return await self._write(lambda connection: self._enter_agent(connection, entry))

    async def agents(self) -> list[AgentEntry]:
        table = self._tables.agent
        query = select(table).order_by(table.c.name)
        return await self._read(lambda connection: [AgentEntry(**row) for row in connection.execute(query).mappings()])

    async def beat(self, agent: str, card: WorkerCard) -> None:
        def stamp(connection: Connection) -> None:
            now_us = self._engine.now_us(connection)
            raw = msgspec.json.encode(replace(card, beat_us=now_us))
            self._beat.run(connection, [(card.id, agent, now_us, raw)])

        await self._write(stamp)

    async def leave(self, worker: str) -> None:
        table = self._tables.worker
        await self._write(lambda connection: connection.execute(delete(table).where(table.c.id == worker)).rowcount)

    async def workers(self) -> list[tuple[str, WorkerCard]]:
        table = self._tables.worker
        query = select(table.c.agent, table.c.card).order_by(table.c.id)
        return await self._read(
            lambda connection: [(row.agent, _cards.decode(row.card)) for row in connection.execute(query)]
        )

    def _enter_agent(self, connection: Connection, entry: AgentEntry) -> AgentEntry:
        table = self._tables.agent
        row = connection.execute(select(table).where(table.c.name == entry.name).with_for_update()).mappings().first()
        known = None if row is None else AgentEntry(**row)
        stored = entered(known, entry)
        self._enter.run(connection, [astuple(stored)])
        return entry if known is None else known
