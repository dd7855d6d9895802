"""Schedules and their occurrences, in SQL."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from msgspec.structs import asdict, replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    Insert,
    Select,
    Update,
    bindparam,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.engine import RowMapping

from jobmaster.contracts.entries import Occurrence, Schedule, ScheduleState
from jobmaster.master.rules import new_placement, saved
from jobmaster.master.sql.part import SqlPart

ACTIVE: ColumnElement[str] = literal_column("'active'")


class SqlSchedules(SqlPart):
    async def save_schedule(self, schedule: Schedule) -> Schedule:
        return await self._write(lambda connection: self._save(connection, schedule))

    async def schedules(self) -> list[Schedule]:
        table = self._tables.schedule
        query = select(table).order_by(table.c.key)
        return await self._read(lambda connection: [_schedule(row) for row in connection.execute(query).mappings()])

    async def due_schedules(self, before_us: int, limit: int) -> list[Schedule]:
        query, given = self._due_schedules_query, {"before_us": before_us, "most": max(limit, 0)}
        return await self._read(
            lambda connection: [_schedule(row) for row in connection.execute(query, given).mappings()]
        )

    async def end_schedule(self, key: str) -> bool:
        table = self._tables.schedule
        ended = ScheduleState.ENDED.value
        change = update(table).where(table.c.key == key, table.c.state != ended).values(state=ended)
        return await self._write(lambda connection: connection.execute(change).rowcount == 1)

    async def plan(self, occurrences: Sequence[Occurrence]) -> list[bool]:
        return await self._write(lambda connection: self._plan(connection, occurrences)) if occurrences else []

    async def ticks(self, key: str, limit: int) -> list[tuple[int, str]]:
        c = self._tables.occurrence.c
        query = select(c.tick_us, c.job_id).where(c.schedule == key).order_by(c.tick_us.desc()).limit(max(limit, 0))
        return await self._read(lambda connection: [(row.tick_us, row.job_id) for row in connection.execute(query)])

    def _save(self, connection: Connection, schedule: Schedule) -> Schedule:
        table = self._tables.schedule
        row = connection.execute(select(table).where(table.c.key == schedule.key).with_for_update()).mappings().first()
        stored = saved(None if row is None else _schedule(row), schedule)
        values = asdict(stored) | {"state": stored.state.value}
        if row is None:
            connection.execute(insert(table).values(values))
        else:
            connection.execute(update(table).where(table.c.key == schedule.key).values(values))
        return stored

    @cached_property
    def _due_schedules_query(self) -> Select[Any]:
        table = self._tables.schedule
        due = (table.c.state == ACTIVE) & (table.c.next_us <= bindparam("before_us"))
        return select(table).where(due).order_by(table.c.next_us, table.c.key).limit(bindparam("most"))

    @cached_property
    def _advance(self) -> Update:
        table = self._tables.schedule
        current = (table.c.key == bindparam("of")) & (table.c.next_us == bindparam("watermark_us"))
        return update(table).where(current, table.c.state == ACTIVE).values(next_us=bindparam("following_us"))

    @cached_property
    def _planned(self) -> Select[Any]:
        tick = self._tables.occurrence
        return select(tick.c.job_id).where(tick.c.schedule == bindparam("of"), tick.c.tick_us == bindparam("at_us"))

    @cached_property
    def _enter_tick(self) -> Insert:
        return insert(self._tables.occurrence)

    def _plan(self, connection: Connection, occurrences: Sequence[Occurrence]) -> list[bool]:
        now_us = self._engine.now_us(connection)
        checked = [replace(item, placement=new_placement(item.placement, now_us)) for item in occurrences]
        # In key order, so that two planners can't wait for each other; a schedule's own ticks stay in theirs.
        order = sorted(range(len(checked)), key=lambda index: checked[index].schedule.encode())
        planned = {index: self._plan_one(connection, checked[index]) for index in order}
        return [planned[index] for index in range(len(checked))]

    def _plan_one(self, connection: Connection, item: Occurrence) -> bool:
        job = item.placement.job
        change = {"of": item.schedule, "watermark_us": item.watermark_us, "following_us": item.next_us}
        if connection.execute(self._advance, change).rowcount != 1:
            return False
        # The schedule's row is locked by now: nobody else plans its ticks until this commits.
        if connection.execute(self._planned, {"of": item.schedule, "at_us": item.tick_us}).first() is not None:
            return False
        tick = {"schedule": item.schedule, "tick_us": item.tick_us, "job_id": job.id}
        connection.execute(self._enter_tick, tick)
        if self._rows.known(connection, [job.id]):
            return False
        self._rows.insert(connection, [item.placement])
        return True


def _schedule(row: RowMapping) -> Schedule:
    fields: dict[str, Any] = dict(row)
    fields["state"] = ScheduleState(fields["state"])
    return Schedule(**fields)
