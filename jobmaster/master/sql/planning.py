"""Planning ticks, and who does it, in SQL.

The schedules of a batch are locked as they are read, and those that somebody else has locked are passed by: any number
of planners may plan at once, and they share the work rather than repeat it. What makes a tick one job are the
occurrence's primary key and the comparison of the watermark; the locks only save work.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, literal_column, or_, select, update

from jobmaster.contracts.scheduling import Planning, PlanReport, Soonest, Term
from jobmaster.master.planning import Batch, Rows, TickWriter, covered, draw_up, jumped, report, servable
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.schedule_rows import ScheduleRows, schedule_of
from jobmaster.master.sql.tables import Tables
from jobmaster.model.ids import occurrence_id

_STATUS: ColumnElement[str] = literal_column("'active'")
_OVER: ColumnElement[str] = literal_column("'ended'")


class SqlPlanning(SqlPart):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._tick_rows = ScheduleRows(tables)
        self._first_term = BulkInsert(tables.term, ("duty", "holder", "number", "until_us"), key=("duty",))

    async def soonest(self, agents: Sequence[str]) -> Soonest:
        return await self._read(
            lambda connection: Soonest(self._engine.now_us(connection), self._soonest(connection, agents)), at_once=True
        )

    async def plan(self, planning: Planning) -> PlanReport:
        return await self._write(lambda connection: self._plan(connection, planning))

    async def backfill(self, key: str, ticks: Sequence[int], planning: Planning) -> PlanReport:
        return await self._write(lambda connection: self._backfill(connection, key, ticks, planning))

    async def lead(self, duty: str, node: str, ttl_us: int) -> Term:
        return await self._write(lambda connection: self._lead(connection, duty, node, ttl_us))

    async def resign(self, duty: str, node: str) -> None:
        term = self._tables.term
        change = update(term).where(term.c.duty == duty, term.c.holder == node).values(until_us=0)
        await self._write(lambda connection: connection.execute(change).rowcount)

    @cached_property
    def _served(self) -> ColumnElement[bool]:
        schedule = self._tables.schedule.c
        bound_here = schedule.agent.in_(bindparam("agents", expanding=True))
        return (schedule.status == _STATUS) & (schedule.state != _OVER) & or_(schedule.agent.is_(None), bound_here)

    @cached_property
    def _soonest_query(self) -> Select[Any]:
        # Not min(): MySQL and Postgres walk the index only for the ordered form once there is another condition.
        look = self._tables.schedule.c.look_us
        return select(look).where(self._served).order_by(look).limit(1)

    @cached_property
    def _due_for_look(self) -> Select[Any]:
        table = self._tables.schedule
        query = select(table).where(self._served, table.c.look_us <= bindparam("now_us"))
        query = query.order_by(table.c.look_us).limit(bindparam("most"))
        return query.with_for_update(skip_locked=True)

    def _soonest(self, connection: Connection, agents: Sequence[str]) -> int | None:
        found: int | None = connection.execute(self._soonest_query, {"agents": [*agents]}).scalar()
        return found

    def _plan(self, connection: Connection, planning: Planning) -> PlanReport:
        now_us = self._engine.now_us(connection)
        if jumped(planning, now_us):
            return PlanReport(now_us=now_us, jumped=True)
        given = {"agents": covered(planning), "now_us": now_us, "most": max(planning.limit, 0)}
        due = [schedule_of(row) for row in connection.execute(self._due_for_look, given).mappings()]
        batch = Batch(servable(due, planning), planning, now_us)
        batch.decide(self._rows.known(connection, batch.last_jobs))
        ticks = self._tick_rows.ticks(connection, batch.keys, *batch.span)
        rows = draw_up(batch, ticks, self._rows.known(connection, batch.job_ids))
        self._write_rows(connection, rows)
        return report(batch, rows, self._soonest(connection, covered(planning)))

    def _backfill(self, connection: Connection, key: str, ticks: Sequence[int], planning: Planning) -> PlanReport:
        now_us = self._engine.now_us(connection)
        schedule = self._tick_rows.by_key(connection, [key], lock=True).get(key)
        batch, rows = Batch([], planning, now_us), Rows()
        if schedule is not None and servable([schedule], planning) and ticks:
            known = self._tick_rows.ticks(connection, [key], min(ticks), max(ticks))
            jobs = self._rows.known(connection, [occurrence_id(key, tick_us) for tick_us in ticks])
            writer = TickWriter(planning, now_us, rows)
            for tick_us in ticks:
                writer.run(schedule, tick_us, known.get((key, tick_us)), jobs, note="backfill")
        self._write_rows(connection, rows)
        return report(batch, rows, None)

    def _write_rows(self, connection: Connection, rows: Rows) -> None:
        self._tick_rows.enter(connection, rows.new)
        self._tick_rows.renew(connection, rows.renewed)
        self._rows.insert(connection, rows.placements)
        if rows.replaced:
            self._rows.write(connection, rows.replaced)
        self._tick_rows.move(connection, rows.moved)

    def _lead(self, connection: Connection, duty: str, node: str, ttl_us: int) -> Term:
        now_us = self._engine.now_us(connection)
        table = self._tables.term
        query = select(table).where(table.c.duty == duty).with_for_update()
        row = connection.execute(query).mappings().first()
        if row is None:
            self._first_term.run(connection, [(duty, node, 1, now_us + ttl_us)])
            row = connection.execute(query).mappings().one()
        elif row["holder"] == node or row["until_us"] <= now_us:
            number = row["number"] + (row["holder"] != node)
            taken = {"holder": node, "number": number, "until_us": now_us + ttl_us}
            connection.execute(update(table).where(table.c.duty == duty).values(taken))
            return Term(node, number, now_us + ttl_us, now_us)
        return Term(row["holder"], row["number"], row["until_us"], now_us)
