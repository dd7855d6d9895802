"""Forgetting what ended long ago, in SQL.

Found on a reader, group by group of (state, lane) in the order of their ends; the writer only deletes. (Postgres finds
and deletes in one statement, where all handlers are meant.) Where some
handlers are kept longer than others, what is kept stands in the way of every look. So each process remembers how far it
has looked through a group, and begins from the start again only now and then, for what was reported late.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, delete, or_, select

from jobmaster.contracts.entries import EVERYTHING, Expiry, Forgotten
from jobmaster.master.parts import FAR
from jobmaster.master.sql.dialects import among
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.parts_postgres import PostgresParts
from jobmaster.master.sql.pruning_postgres import PostgresPruner
from jobmaster.master.sql.rows import chunks
from jobmaster.master.sql.tables import Tables
from jobmaster.model.states import TERMINAL, JobState

LOOK = 5_000
"""Rows of a group that are looked at in one statement for those of some handlers."""
AGAIN_SECONDS = 3_600.0

_Group = tuple[Expiry, JobState, str]


class SqlPruning(SqlPart):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._looked: dict[_Group, int] = {}
        """Up to which end a group was looked through."""
        self._look_again = time.monotonic() + AGAIN_SECONDS
        self._on_postgres = PostgresPruner(tables)
        self._parts = PostgresParts(engine, tables)

    async def forget(self, kept: Sequence[tuple[Expiry, int]]) -> Forgotten:
        return await self._parts.forget(kept)

    async def prune(self, before_us: int, limit: int, which: Expiry = EVERYTHING, below: str | None = None) -> int:
        if time.monotonic() >= self._look_again:
            self._looked.clear()
            self._look_again = time.monotonic() + AGAIN_SECONDS
        ids, looked = await self._read(lambda connection: self._old(connection, before_us, max(limit, 0), which, below))
        if ids == [] and which.jobs_only:
            gone = 0
        else:
            gone = await self._write(lambda connection: self._prune(connection, before_us, limit, ids, which, below))
        self._looked |= looked
        return gone

    def _groups(self, connection: Connection, states: frozenset[JobState] = TERMINAL) -> Iterator[tuple[JobState, str]]:
        """The (state, lane) pairs of the history, found by skipping along the index from one to the next."""
        for state in sorted(states & TERMINAL):
            lane: str | None = ""
            while (lane := connection.execute(self._next_lane(state, lane)).scalar()) is not None:
                yield state, lane

    def _next_lane(self, state: JobState, lane: str | None) -> Select[Any]:
        history = self._tables.history.c
        following = select(history.lane).where(history.state == state.value, history.lane > lane)
        return following.order_by(history.lane).limit(1)

    def _old(
        self, connection: Connection, before_us: int, limit: int, which: Expiry, below: str | None
    ) -> tuple[list[str] | None, dict[_Group, int]]:
        """Ids, and how far each group was looked through for them. None: the writer finds them itself."""
        if connection.dialect.name == "postgresql" and which.handler is None and not which.besides:
            return None, {}
        ids: list[str] = []
        looked: dict[_Group, int] = {}
        for state, lane in self._groups(connection, which.states):
            if which.handler is None and not which.besides:
                if len(ids) < limit:
                    query = self._old_query(state, lane, before_us, limit - len(ids), below)
                    ids += [row.id for row in connection.execute(query)]
                continue
            group = which, state, lane
            while len(ids) < limit:
                from_us = looked.get(group, self._looked.get(group, 0))
                query = self._old_query(state, lane, before_us, LOOK, below, from_us)
                rows = connection.execute(query).all()
                taken = [row for row in rows if which.matches(row.handler)][: limit - len(ids)]
                ids += [row.id for row in taken]
                if len(ids) == limit:
                    looked[group] = taken[-1].finished_us if taken else from_us
                elif len(rows) == LOOK:
                    # What ends in the same microsecond may be on both sides of the cut; more than these end nowhere.
                    looked[group] = max(rows[-1].finished_us, from_us + 1)
                else:
                    looked[group] = rows[-1].finished_us if rows else from_us
                    break
        return ids, looked

    def _old_query(
        self, state: JobState, lane: str, before_us: int, limit: int, below: str | None = None, from_us: int = 0
    ) -> Select[Any, Any, Any]:
        history = self._tables.history.c
        group = (history.state == state.value) & (history.lane == lane) & (history.finished_us < before_us)
        if from_us:
            group &= history.finished_us >= from_us
        if below is not None:
            group &= or_(history.id < below, history.id >= FAR)
        columns = (history.id, history.handler, history.finished_us)
        return select(*columns).where(group).order_by(history.finished_us).limit(limit)

    def _prune(
        self,
        connection: Connection,
        before_us: int,
        limit: int,
        ids: Sequence[str] | None,
        which: Expiry,
        below: str | None,
    ) -> int:
        history, run = self._tables.history, self._tables.run
        gone = 0
        if ids is None:
            groups = self._groups(connection, which.states)
            gone = self._on_postgres.prune(connection, groups, before_us, max(limit, 0), below)
        for chunk in chunks(ids or ()):
            # Redriven since it was found: it is not in the history any more, and keeps its runs.
            found = connection.execute(
                select(history.c.id).where(among(connection, history.c.id, chunk), history.c.finished_us < before_us)
            )
            old = [row.id for row in found]
            gone += connection.execute(delete(history).where(among(connection, history.c.id, old))).rowcount
            connection.execute(delete(run).where(among(connection, run.c.job_id, old)))
        if not which.jobs_only:
            self._prune_records(connection, before_us, limit)
        return gone

    def _prune_records(self, connection: Connection, before_us: int, limit: int) -> None:
        tick, event = self._tables.occurrence.c, self._tables.event.c
        # A bound instead of a list of keys: deleting by pairs is no index search everywhere.
        last = select(tick.tick_us).where(tick.tick_us < before_us).order_by(tick.tick_us).offset(max(limit, 1) - 1)
        bound = connection.execute(last.limit(1)).scalar()
        old_ticks = tick.tick_us < before_us if bound is None else tick.tick_us <= bound
        connection.execute(delete(self._tables.occurrence).where(old_ticks))
        # In the order of their ids, which is that of their making.
        oldest = connection.execute(select(event.id, event.at_us).order_by(event.id).limit(max(limit, 1)))
        old_events = [row.id for row in oldest if row.at_us < before_us]
        for chunk in chunks(old_events):
            connection.execute(delete(self._tables.event).where(among(connection, event.id, chunk)))
        worker = self._tables.worker
        connection.execute(delete(worker).where(worker.c.beat_us < before_us))
        operation = self._tables.operation
        connection.execute(delete(operation).where(operation.c.finished_us < before_us))
