"""Definitions, agents and workers, in SQL."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
from msgspec.structs import astuple, replace
from sqlalchemy import Connection, Select, delete, literal, select, update
from sqlalchemy.engine import RowMapping

from jobmaster.contracts.entries import AgentEntry, AgentState, DefinitionEntry, Event
from jobmaster.contracts.values import WorkerCard
from jobmaster.master.rules import entered, same_store, turned, turning
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.tables import Tables

_DEFINITION = DefinitionEntry.__struct_fields__
_AGENT = tuple(name for name in AgentEntry.__struct_fields__ if name not in ("quarantined", "state", "target"))
"""What a process says of an agent when it starts; the rest is an operator's."""
_EVENT = Event.__struct_fields__
_QUARANTINED = "quarantined:"
"""With an agent's name behind it: where `meta` keeps why. It is rare, and no column is worth carrying for it."""
_cards = msgspec.json.Decoder(WorkerCard)


class SqlTopology(SqlPart):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._define = BulkInsert(tables.definition, _DEFINITION, key=("name",), replacing=True)
        self._enter = BulkInsert(tables.agent, _AGENT, key=("name",), replacing=True)
        self._note = BulkInsert(tables.meta, ("name", "value"), key=("name",), replacing=True)
        self._record_rows = BulkInsert(tables.event, _EVENT, key=("id",))
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
            lambda connection: [DefinitionEntry(**row) for row in connection.execute(query).mappings()], at_once=True
        )

    async def enter_agent(self, entry: AgentEntry) -> AgentEntry:
        return await self._write(lambda connection: self._enter_agent(connection, entry))

    async def renew_agent(self, known: AgentEntry, entry: AgentEntry) -> AgentEntry:
        return await self._write(lambda connection: self._renew_agent(connection, known, entry))

    async def note_quarantine(self, name: str, why: str | None) -> None:
        await self._write(lambda connection: self._note_quarantine(connection, name, why))

    async def agents(self) -> list[AgentEntry]:
        query = self._agents.order_by(self._tables.agent.c.name)
        return await self._read(
            lambda connection: [_entry(row) for row in connection.execute(query).mappings()], at_once=True
        )

    async def turn_agent(
        self, name: str, state: AgentState, target: str | None, who: str, unless: frozenset[AgentState] = frozenset()
    ) -> AgentEntry | None:
        def turn(connection: Connection) -> AgentEntry | None:
            known = self._agent(connection, name)
            if known is None:
                return None
            entry = turned(known, state, target, unless)
            if entry is not known:
                table = self._tables.agent
                change = update(table).where(table.c.name == name).values(state=entry.state.value, target=entry.target)
                connection.execute(change)
                self._record(connection, [turning(entry, who)])
            return entry

        return await self._write(turn)

    async def record(self, events: Sequence[Event]) -> None:
        if events:
            await self._write(lambda connection: self._record(connection, events))

    async def events(self, subject: str | None, before_id: str | None, limit: int) -> list[Event]:
        table = self._tables.event
        query = select(table).order_by(table.c.id.desc()).limit(max(limit, 0))
        query = query if subject is None else query.where(table.c.subject == subject).order_by(None)
        query = query if subject is None else query.order_by(table.c.subject.desc(), table.c.id.desc())
        query = query if before_id is None else query.where(table.c.id < before_id)
        return await self._read(
            lambda connection: [Event(**row) for row in connection.execute(query).mappings()], at_once=True
        )

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
            lambda connection: [(row.agent, _cards.decode(row.card)) for row in connection.execute(query)], at_once=True
        )

    def _enter_agent(self, connection: Connection, entry: AgentEntry) -> AgentEntry:
        known = self._agent(connection, entry.name)
        stored = entered(known, entry)
        if stored != known:
            self._store_agent(connection, stored)
        return entry if known is None else known

    def _renew_agent(self, connection: Connection, known: AgentEntry, entry: AgentEntry) -> AgentEntry:
        stored = self._agent(connection, known.name)
        if stored is not None and not same_store(stored, known):
            return stored
        self._store_agent(connection, entry)
        self._note_quarantine(connection, entry.name, None)
        decided = stored or entry
        return replace(entry, quarantined=None, state=decided.state, target=decided.target)

    def _agent(self, connection: Connection, name: str) -> AgentEntry | None:
        table = self._tables.agent
        connection.execute(select(table.c.name).where(table.c.name == name).with_for_update())
        row = connection.execute(self._agents.where(table.c.name == name)).mappings().first()
        return None if row is None else _entry(row)

    @cached_property
    def _agents(self) -> Select[Any]:
        table, meta = self._tables.agent, self._tables.meta
        noted = table.outerjoin(meta, meta.c.name == literal(_QUARANTINED) + table.c.name)
        return select(table).add_columns(meta.c.value.label("quarantined")).select_from(noted)

    def _record(self, connection: Connection, events: Sequence[Event]) -> None:
        now_us = self._engine.now_us(connection)
        self._record_rows.run(connection, [astuple(replace(event, at_us=now_us)) for event in events])

    def _store_agent(self, connection: Connection, entry: AgentEntry) -> None:
        self._enter.run(connection, [tuple(getattr(entry, name) for name in _AGENT)])

    def _note_quarantine(self, connection: Connection, name: str, why: str | None) -> None:
        key = _QUARANTINED + name
        if why is None:
            connection.execute(delete(self._tables.meta).where(self._tables.meta.c.name == key))
        else:
            self._note.run(connection, [(key, why[:1_000])])


def _entry(row: RowMapping) -> AgentEntry:
    return AgentEntry(**{**row, "state": AgentState(row["state"])})
