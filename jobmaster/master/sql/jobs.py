"""Held jobs and their hand-off, in SQL."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Select, Update, and_, bindparam, literal_column, select, update

from jobmaster.contracts.decisions import amended, cancelled
from jobmaster.contracts.entries import Dispatch, HeldAnswer, Placement
from jobmaster.contracts.values import AmendAnswer, Amendment, PutAnswer
from jobmaster.master.rules import (
    DISPATCH_US,
    REDRIVABLE,
    WAITING,
    amend_answer,
    handed_off,
    held_answer,
    insert_answer,
    new_placement,
    redriven,
)
from jobmaster.master.sql.dialects import among, among_given, ids_given
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.rows import chunks, job_of, placement_of
from jobmaster.model.job import Job
from jobmaster.model.states import JobState

# Written out, not bound: only so a database sees that a partial index serves the query.
HELD: ColumnElement[str] = literal_column("'held'")
DISPATCHING: ColumnElement[str] = literal_column("'dispatching'")


class SqlJobs(SqlPart):
    """The statements that an idle process repeats are built once: that costs several times what running them does."""

    _arrive: Update | None = None

    async def insert(self, placements: Sequence[Placement]) -> list[PutAnswer]:
        return await self._write(lambda connection: self._insert(connection, placements))

    async def due(self, before_us: int, limit: int) -> list[Job]:
        given = {"before_us": before_us, "most": max(limit, 0)}
        return await self._read(
            lambda connection: [job_of(row) for row in connection.execute(self._due_query, given).mappings()]
        )

    async def dispatch(self, moves: Sequence[Dispatch]) -> list[Placement | None]:
        return await self._write(lambda connection: self._dispatch(connection, moves))

    async def overdue(self, agent: str, limit: int) -> list[Placement]:
        return await self._write(lambda connection: self._overdue(connection, agent, max(limit, 0)))

    async def dispatched(self, ids: Sequence[tuple[str, int]]) -> int:
        return await self._write(lambda connection: self._dispatched(connection, ids))

    async def cancel(self, ids: Sequence[str]) -> list[HeldAnswer]:
        def change(connection: Connection) -> list[HeldAnswer]:
            now_us = self._engine.now_us(connection)
            return self._change(connection, ids, WAITING, lambda job: cancelled(job, now_us)[0])

        return await self._write(change)

    async def redrive(self, ids: Sequence[str], due_us: int, fresh: bool) -> list[HeldAnswer]:
        return await self._write(
            lambda connection: self._change(connection, ids, REDRIVABLE, lambda job: redriven(job, due_us, fresh))
        )

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        return await self._write(lambda connection: self._amend(connection, items))

    def _insert(self, connection: Connection, placements: Sequence[Placement]) -> list[PutAnswer]:
        now_us = self._engine.now_us(connection)
        items = [new_placement(item, now_us) for item in placements]
        ids = [item.job.id for item in items]
        known = self._rows.known(connection, ids)
        new: dict[str, Placement] = {}
        for item in items:
            if item.job.id not in known:
                new.setdefault(item.job.id, item)
        self._rows.insert(connection, [*new.values()])
        if not self._engine.serial:
            # Somebody else may have inserted one of them in the meantime; whose it is can be read now.
            mine = {job_id: item.job for job_id, item in new.items()}
            known |= self._rows.known(connection, ids)
            new = {job_id: item for job_id, item in new.items() if known[job_id] == mine[job_id]}
        answers = []
        for item in items:
            if new.get(item.job.id) is item:
                answers.append(PutAnswer.STORED)
            else:
                answers.append(insert_answer(known.get(item.job.id) or new[item.job.id].job, item.job))
        return answers

    @cached_property
    def _due_query(self) -> Select[Any]:
        job = self._tables.job
        due = and_(job.c.state == HELD, job.c.due_us <= bindparam("before_us"))
        return select(job).where(due).order_by(job.c.due_us, job.c.id).limit(bindparam("most"))

    def _dispatch(self, connection: Connection, moves: Sequence[Dispatch]) -> list[Placement | None]:
        until_us = self._engine.now_us(connection) + DISPATCH_US
        rows = self._rows.live(connection, [move.id for move in moves], lock=True)
        placed: dict[str, Placement] = {}
        answers: list[Placement | None] = []
        for move in moves:
            job = rows[move.id].job if move.id in rows and move.id not in placed else None
            if job is None or job.state is not JobState.HELD or job.version != move.version:
                answers.append(None)
            else:
                placed[move.id] = Placement(handed_off(job, move.agent), until_us, move.put_deadline_us)
                answers.append(placed[move.id])
        self._rows.write(connection, [*placed.values()])
        return answers

    def _overdue(self, connection: Connection, agent: str, limit: int) -> list[Placement]:
        now_us = self._engine.now_us(connection)
        given = {"served": agent, "now_us": now_us, "most": limit}
        late = [placement_of(row) for row in connection.execute(self._overdue_query, given).mappings()]
        for ids in chunks(item.job.id for item in late):
            job = self._tables.job
            connection.execute(
                update(job).where(among(connection, job.c.id, ids)).values(dispatch_until_us=now_us + DISPATCH_US)
            )
        return [replace(item, dispatch_until_us=now_us + DISPATCH_US) for item in late]

    @cached_property
    def _overdue_query(self) -> Select[Any]:
        job = self._tables.job
        late = and_(
            job.c.state == DISPATCHING,
            job.c.agent == bindparam("served"),
            job.c.dispatch_until_us < bindparam("now_us"),
        )
        oldest = select(job).where(late).order_by(job.c.dispatch_until_us).limit(bindparam("most"))
        return oldest.with_for_update(skip_locked=True)

    def _dispatched(self, connection: Connection, ids: Sequence[tuple[str, int]]) -> int:
        by_epoch: defaultdict[int, list[str]] = defaultdict(list)
        for job_id, epoch in ids:
            by_epoch[epoch].append(job_id)
        if self._arrive is None:
            job = self._tables.job
            there = (
                among_given(connection, job.c.id),
                job.c.epoch == bindparam("at_epoch"),
                job.c.state == DISPATCHING,
            )
            queued = {"state": JobState.QUEUED.value, "dispatch_until_us": None, "put_deadline_us": None}
            self._arrive = update(job).where(*there).values(queued)
        arrived = 0
        for epoch, members in by_epoch.items():
            for chunk in chunks(members):
                given = {"at_epoch": epoch, **ids_given(connection, chunk)}
                arrived += connection.execute(self._arrive, given).rowcount
        return arrived

    def _amend(self, connection: Connection, items: Sequence[Amendment]) -> list[AmendAnswer]:
        known = self._rows.known(connection, [item.id for item in items], lock=True)
        answers, changed = [], {}
        for item in items:
            job = known.get(item.id)
            answer = amend_answer(job, item)
            if job is not None and answer is AmendAnswer.CHANGED:
                changed[job.id] = known[job.id] = amended(job, item)
            answers.append(answer)
        self._rows.write(connection, [Placement(job) for job in changed.values()])
        return answers

    def _change(
        self, connection: Connection, ids: Sequence[str], allowed: frozenset[JobState], into: Callable[[Job], Job]
    ) -> list[HeldAnswer]:
        known = self._rows.known(connection, ids, lock=True)
        answers, changed = [], {}
        for job_id in ids:
            job = known.get(job_id)
            if job is not None and job.state in allowed:
                changed[job_id] = known[job_id] = into(job)
                answers.append(HeldAnswer.CHANGED)
            else:
                answers.append(held_answer(None if job is None else job.state))
        self._rows.write(connection, [Placement(job) for job in changed.values()])
        return answers
