"""Schedules: what they are and what is changed about them, in SQL."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace
from sqlalchemy import Connection, or_, select, update

from jobmaster.contracts.decisions import cancelled
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.scheduling import (
    Occurrence,
    OccurrenceEntry,
    Saved,
    Schedule,
    ScheduleState,
    Synced,
    Taken,
    TickState,
)
from jobmaster.master.schedule_rules import (
    WITHDRAWN_AT_ONCE,
    ended,
    is_foreign,
    reconciled,
    saved,
    takes_back,
    turned,
    withdraws,
)
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.schedule_rows import ScheduleRows, occurrence_of, schedule_of
from jobmaster.master.sql.tables import Tables
from jobmaster.model.states import JobState

MOST_COMING = 1_000
"""Ticks planned ahead that one edit takes back; planners plan far fewer."""


class SqlSchedules(SqlPart):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._schedule_rows = ScheduleRows(tables)
        self._see_profiles = BulkInsert(tables.profile, ("name", "seen_us"), key=("name",), replacing=True)

    async def save_schedule(self, schedule: Schedule) -> Saved:
        return await self._write(lambda connection: self._save_schedule(connection, schedule))

    async def turn_schedule(self, key: str, state: ScheduleState) -> Saved | None:
        return await self._write(lambda connection: self._turn(connection, key, state))

    async def schedules(self) -> list[Schedule]:
        table = self._tables.schedule
        query = select(table).order_by(table.c.key)
        return await self._read(lambda connection: [*map(schedule_of, connection.execute(query).mappings())])

    async def schedule(self, key: str) -> Schedule | None:
        return await self._read(lambda connection: self._schedule_rows.by_key(connection, [key]).get(key))

    async def occurrences(self, key: str, before_us: int | None, limit: int) -> list[OccurrenceEntry]:
        return await self._read(lambda connection: self._occurrences(connection, key, before_us, max(limit, 0)))

    async def tick_ran(self, ticks: Sequence[tuple[str, int]]) -> int:
        def ran(connection: Connection) -> int:
            tick = self._tables.occurrence
            planned = update(tick).values(state=TickState.PLANNED.value)
            withdrawn = tick.c.state == TickState.WITHDRAWN.value
            return sum(
                connection.execute(planned.where(tick.c.schedule == key, tick.c.tick_us == tick_us, withdrawn)).rowcount
                for key, tick_us in sorted(ticks, key=lambda item: (item[0].encode(), item[1]))
            )

        return await self._write(ran) if ticks else 0

    async def sync_profiles(
        self, declared: Mapping[str, Sequence[Schedule]], grace_us: int, *, dry: bool = False
    ) -> Synced:
        if dry:
            return await self._read(lambda connection: self._sync(connection, declared, grace_us, dry=True))
        return await self._write(lambda connection: self._sync(connection, declared, grace_us, dry=False))

    async def retire(self, alive: Sequence[str], grace_us: int) -> list[Taken]:
        return await self._write(lambda connection: self._retire(connection, alive, grace_us))

    def _save_schedule(self, connection: Connection, schedule: Schedule) -> Saved:
        now_us = self._engine.now_us(connection)
        stored = self._schedule_rows.by_key(connection, [schedule.key], lock=True).get(schedule.key)
        if stored is not None and is_foreign(stored, schedule):
            return Saved(stored, changed=False)
        return self._change_schedule(connection, stored, saved(stored, schedule, now_us), now_us)

    def _turn(self, connection: Connection, key: str, state: ScheduleState) -> Saved | None:
        now_us = self._engine.now_us(connection)
        stored = self._schedule_rows.by_key(connection, [key], lock=True).get(key)
        if stored is None:
            return None
        return self._change_schedule(connection, stored, turned(stored, state, now_us), now_us)

    def _change_schedule(self, connection: Connection, stored: Schedule | None, after: Schedule, now_us: int) -> Saved:
        if after is stored:
            return Saved(after, changed=False)
        self._schedule_rows.save(connection, [after])
        return Saved(after, self._withdraw(connection, after, now_us) if withdraws(stored, after) else ())

    def _withdraw(self, connection: Connection, schedule: Schedule, now_us: int) -> tuple[Taken, ...]:
        """Take back what can be taken back of its ticks to come; once it has ended also of those that wait."""
        tick = self._tables.occurrence
        latest = select(tick).where(tick.c.schedule == schedule.key).order_by(tick.c.tick_us.desc())
        coming = latest.where(tick.c.tick_us > now_us).limit(MOST_COMING)
        query = latest.limit(WITHDRAWN_AT_ONCE) if schedule.state is ScheduleState.ENDED else coming
        found = [occurrence_of(row) for row in connection.execute(query).mappings()]
        jobs = self._rows.known(connection, [entry.job_id for entry in found], lock=True)
        taken: list[Taken] = []
        withdrawn: list[Occurrence] = []
        stopped: list[Placement] = []
        for entry in found:
            job = jobs.get(entry.job_id)
            item = takes_back(entry, job)
            if item is None or job is None:
                continue
            taken.append(item)
            withdrawn.append(replace(entry, state=TickState.WITHDRAWN))
            if job.state is not JobState.QUEUED:
                stopped.append(Placement(cancelled(job, now_us)[0]))
        self._schedule_rows.renew(connection, withdrawn)
        self._rows.write(connection, stopped)
        return tuple(taken)

    def _occurrences(
        self, connection: Connection, key: str, before_us: int | None, limit: int
    ) -> list[OccurrenceEntry]:
        tick = self._tables.occurrence
        query = select(tick).where(tick.c.schedule == key).order_by(tick.c.tick_us.desc()).limit(limit)
        if before_us is not None:
            query = query.where(tick.c.tick_us < before_us)
        found = [occurrence_of(row) for row in connection.execute(query).mappings()]
        jobs = self._rows.known(connection, [entry.job_id for entry in found])
        return [OccurrenceEntry(entry, jobs.get(entry.job_id)) for entry in found]

    def _sync(
        self, connection: Connection, declared: Mapping[str, Sequence[Schedule]], grace_us: int, *, dry: bool
    ) -> Synced:
        now_us = self._engine.now_us(connection)
        if declared and not dry:
            # The rows are the lock: two processes that start at once reconcile one after the other.
            self._see_profiles.run(connection, [(name, now_us) for name in sorted(declared)])
        table = self._tables.schedule
        keys = [schedule.key for schedules in declared.values() for schedule in schedules]
        owned = select(table.c.key).where(table.c.profile.in_(sorted(declared)))
        keys += [row.key for row in connection.execute(owned)]
        outcome = reconciled(self._schedule_rows.by_key(connection, keys, lock=not dry), declared, grace_us, now_us)
        if dry or outcome.synced.conflicts:
            return outcome.synced
        taken = [
            item
            for before, after in sorted(outcome.writes, key=lambda write: write[1].key.encode())
            for item in self._change_schedule(connection, before, after, now_us).taken
        ]
        return replace(outcome.synced, taken=tuple(taken))

    def _retire(self, connection: Connection, alive: Sequence[str], grace_us: int) -> list[Taken]:
        now_us = self._engine.now_us(connection)
        self._see_profiles.run(connection, [(name, now_us) for name in sorted(set(alive))])
        table, profile = self._tables.schedule.c, self._tables.profile.c
        unseen = select(profile.name).where(profile.seen_us <= now_us - grace_us)
        gone = select(table.key).where(
            table.status != ScheduleState.ENDED.value,
            or_(table.profile.in_(unseen), table.retire_us <= now_us),
        )
        keys = [row.key for row in connection.execute(gone)]
        stored = self._schedule_rows.by_key(connection, keys, lock=True)
        return [
            item
            for _, schedule in sorted(stored.items(), key=lambda entry: entry[0].encode())
            if schedule.state is not ScheduleState.ENDED
            for item in self._change_schedule(connection, schedule, ended(schedule), now_us).taken
        ]
