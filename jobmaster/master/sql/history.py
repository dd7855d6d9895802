"""Reading jobs and runs, and forgetting them, in SQL."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, func, select

from jobmaster.contracts.entries import HeldAnswer, StateCount
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.master.rules import check_page, expected, held_answer
from jobmaster.master.sql.dialects import among, exactly
from jobmaster.master.sql.pages import read_page
from jobmaster.master.sql.pruning import SqlPruning
from jobmaster.master.sql.rows import CHUNK, chunks
from jobmaster.model.job import RUN_FIELDS, Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import TERMINAL, JobState


class SqlHistory(SqlPruning):
    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        if len(ids) <= CHUNK:
            known = await self._read(lambda connection: self._rows.seen(connection, ids), at_once=True)
        else:
            known = await self._read(lambda connection: self._rows.known(connection, ids))
        return [known.get(job_id) for job_id in ids]

    async def runs(self, job_id: str) -> list[Run]:
        table = self._tables.run
        query = select(table).where(table.c.job_id == job_id).order_by(table.c.token)
        return await self._read(
            lambda connection: [_run(row) for row in connection.execute(query).mappings()], at_once=True
        )

    async def page(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        check_page(cursor, limit)
        return await self._read(lambda connection: read_page(connection, self._tables, where, cursor, limit))

    async def counts(self, cap: int) -> list[StateCount]:
        return await self._read(lambda connection: self._counts(connection, cap))

    async def delete(self, ids: Sequence[str], versions: Sequence[int] | None = None) -> list[HeldAnswer]:
        return await self._write(lambda connection: self._delete(connection, ids, expected(ids, versions)))

    def _counts(self, connection: Connection, cap: int) -> list[StateCount]:
        counts = []
        job, history = self._tables.job, self._tables.history
        groups = [(job, state, lane) for state, lane in self._live_groups(connection)]
        groups += [(history, state, lane) for state, lane in self._groups(connection)]
        for table, state, lane in groups:
            count: int = connection.execute(
                self._group_count(connection.dialect.name, table, state, lane, cap)
            ).scalar_one()
            if count:
                counts.append(StateCount(state, lane, min(count, cap), count > cap))
        return sorted(counts, key=lambda entry: (entry.state, entry.lane))

    def _live_groups(self, connection: Connection) -> Iterator[tuple[JobState, str]]:
        """What (state, lane) pairs there can be among live jobs: of every lane, found by skipping from one to the
        next along the index, each live state."""
        job = self._tables.job.c
        lane: str | None = ""
        while lane is not None:
            following = select(job.lane).where(job.lane > lane).order_by(job.lane).limit(1)
            lane = connection.execute(following).scalar()
            if lane is not None:
                yield from ((state, lane) for state in JobState if state not in TERMINAL)

    def _group_count(self, dialect: str, table: Table, state: JobState, lane: str, cap: int) -> Select[Any]:
        group = (table.c.lane, table.c.state) if table is self._tables.job else (table.c.state, table.c.lane)
        given = {"state": state.value, "lane": lane}
        these = exactly(dialect, {column: given[column.key] for column in group})
        some = select(table.c.state).where(these).order_by(*group).limit(cap + 1)
        return select(func.count()).select_from(some.subquery())

    def _delete(self, connection: Connection, ids: Sequence[str], wanted: Mapping[str, int]) -> list[HeldAnswer]:
        known = self._rows.known(connection, ids, lock=True)
        answers, gone = [], []
        for job_id in ids:
            job = known.get(job_id)
            if job is not None and job.terminal and wanted.get(job_id, job.version) == job.version:
                answers.append(HeldAnswer.CHANGED)
                gone.append(job_id)
            else:
                answers.append(held_answer(None if job is None else job.state))
        for chunk in chunks(gone):
            for column in (self._tables.job.c.id, self._tables.history.c.id, self._tables.run.c.job_id):
                connection.execute(delete(column.table).where(among(connection, column, chunk)))
        return answers


def _run(fields: Any) -> Run:
    values = {name: fields[name] for name in RUN_FIELDS}
    values["outcome"] = RunOutcome(values["outcome"])
    return Run(**values)
