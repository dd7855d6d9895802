"""Reading jobs and runs, and forgetting them, in SQL."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, delete, func, select

from jobmaster.contracts.entries import HeldAnswer, StateCount
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.master.rules import check_page, held_answer
from jobmaster.master.sql.dialects import among
from jobmaster.master.sql.pages import read_page
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.rows import chunks
from jobmaster.model.job import RUN_FIELDS, Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import TERMINAL, JobState


class SqlHistory(SqlPart):
    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        known = await self._read(lambda connection: self._rows.known(connection, ids))
        return [known.get(job_id) for job_id in ids]

    async def runs(self, job_id: str) -> list[Run]:
        table = self._tables.run
        query = select(table).where(table.c.job_id == job_id).order_by(table.c.token)
        return await self._read(lambda connection: [_run(row) for row in connection.execute(query).mappings()])

    async def page(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        check_page(cursor, limit)
        return await self._read(lambda connection: read_page(connection, self._tables, where, cursor, limit))

    async def counts(self, cap: int) -> list[StateCount]:
        return await self._read(lambda connection: self._counts(connection, cap))

    async def delete(self, ids: Sequence[str]) -> list[HeldAnswer]:
        return await self._write(lambda connection: self._delete(connection, ids))

    async def prune(self, before_us: int, limit: int) -> int:
        # Found on a reader: the writer, which everybody waits for, only deletes.
        ids = await self._read(lambda connection: self._old(connection, before_us, max(limit, 0)))
        return await self._write(lambda connection: self._prune(connection, before_us, limit, ids))

    def _counts(self, connection: Connection, cap: int) -> list[StateCount]:
        job = self._tables.job.c
        live = select(job.state, job.lane, func.count()).group_by(job.state, job.lane)
        counts = [StateCount(JobState(state), lane, count) for state, lane, count in connection.execute(live)]
        for state, lane in self._groups(connection):
            count: int = connection.execute(self._group_count(state, lane, cap)).scalar_one()
            counts.append(StateCount(state, lane, min(count, cap), count > cap))
        return sorted(counts, key=lambda entry: (entry.state, entry.lane))

    def _groups(self, connection: Connection) -> Iterator[tuple[JobState, str]]:
        """The (state, lane) pairs of the history, found by skipping along the index from one to the next."""
        for state in sorted(TERMINAL):
            lane: str | None = ""
            while (lane := connection.execute(self._next_lane(state, lane)).scalar()) is not None:
                yield state, lane

    def _next_lane(self, state: JobState, lane: str | None) -> Select[Any]:
        history = self._tables.history.c
        following = select(history.lane).where(history.state == state.value, history.lane > lane)
        return following.order_by(history.lane).limit(1)

    def _group_count(self, state: JobState, lane: str, cap: int) -> Select[Any]:
        history = self._tables.history.c
        some = select(history.state).where(history.state == state.value, history.lane == lane).limit(cap + 1)
        return select(func.count()).select_from(some.subquery())

    def _delete(self, connection: Connection, ids: Sequence[str]) -> list[HeldAnswer]:
        known = self._rows.known(connection, ids, lock=True)
        answers, gone = [], []
        for job_id in ids:
            job = known.get(job_id)
            if job is not None and job.terminal:
                answers.append(HeldAnswer.CHANGED)
                gone.append(job_id)
            else:
                answers.append(held_answer(None if job is None else job.state))
        for chunk in chunks(gone):
            for column in (self._tables.job.c.id, self._tables.history.c.id, self._tables.run.c.job_id):
                connection.execute(delete(column.table).where(among(connection, column, chunk)))
        return answers

    def _old(self, connection: Connection, before_us: int, limit: int) -> list[str]:
        ids: list[str] = []
        for state, lane in self._groups(connection):
            if len(ids) < limit:
                query = self._old_query(state, lane, before_us, limit - len(ids))
                ids += [row.id for row in connection.execute(query)]
        return ids

    def _old_query(self, state: JobState, lane: str, before_us: int, limit: int) -> Select[Any]:
        history = self._tables.history.c
        group = (history.state == state.value) & (history.lane == lane) & (history.finished_us < before_us)
        return select(history.id).where(group).order_by(history.finished_us).limit(limit)

    def _prune(self, connection: Connection, before_us: int, limit: int, ids: Sequence[str]) -> int:
        history, run, tick = self._tables.history, self._tables.run, self._tables.occurrence.c
        gone = 0
        for chunk in chunks(ids):
            # Redriven since it was found: it is not in the history any more, and keeps its runs.
            found = connection.execute(
                select(history.c.id).where(among(connection, history.c.id, chunk), history.c.finished_us < before_us)
            )
            old = [row.id for row in found]
            gone += connection.execute(delete(history).where(among(connection, history.c.id, old))).rowcount
            connection.execute(delete(run).where(among(connection, run.c.job_id, old)))
        # A bound instead of a list of keys: deleting by pairs is no index search everywhere.
        last = select(tick.tick_us).where(tick.tick_us < before_us).order_by(tick.tick_us).offset(max(limit, 1) - 1)
        bound = connection.execute(last.limit(1)).scalar()
        old_ticks = tick.tick_us < before_us if bound is None else tick.tick_us <= bound
        connection.execute(delete(self._tables.occurrence).where(old_ticks))
        worker = self._tables.worker
        connection.execute(delete(worker).where(worker.c.beat_us < before_us))
        return gone


def _run(fields: Any) -> Run:
    values = {name: fields[name] for name in RUN_FIELDS}
    values["outcome"] = RunOutcome(values["outcome"])
    return Run(**values)
