"""Held jobs and their hand-off, in SQL."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    Update,
    and_,
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from jobmaster.contracts.decisions import amended, cancelled
from jobmaster.contracts.entries import Dispatch, HandedOff, HeldAnswer, Placement, Routes
from jobmaster.contracts.values import AmendAnswer, Amendment, InventoryItem, PutAnswer
from jobmaster.master.rules import (
    DISPATCH_US,
    ON_AGENTS,
    REDRIVABLE,
    WAITING,
    amend_answer,
    expected,
    handed_off,
    held_answer,
    insert_answer,
    new_placement,
    redriven,
    routed,
)
from jobmaster.master.sql.dialects import among, among_given, ids_given
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.rows import chunks, job_of, placement_of
from jobmaster.model.job import Job
from jobmaster.model.states import JobState

# Written out, not bound: only so a database sees that a partial index serves the query.
HELD: ColumnElement[str] = literal_column("'held'")
DISPATCHING: ColumnElement[str] = literal_column("'dispatching'")

NO_ID = "00000000-0000-0000-0000-000000000000"
"""Before every id, and one where the column takes nothing else."""


class SqlJobs(SqlPart):
    """The statements that an idle process repeats are built once: that costs several times what running them does."""

    _arrive: Update | None = None
    _leave: Update | None = None

    async def insert(self, placements: Sequence[Placement]) -> list[PutAnswer]:
        return await self._write(lambda connection: self._insert(connection, placements))

    async def due(self, before_us: int, limit: int) -> list[Job]:
        given = {"before_us": before_us, "most": max(limit, 0)}
        return await self._read(
            lambda connection: [job_of(row) for row in connection.execute(self._due_query, given).mappings()],
            at_once=True,
        )

    async def hand_off(self, before_us: int, limit: int, routes: Routes) -> HandedOff:
        return await self._write(lambda connection: self._hand_off(connection, before_us, max(limit, 0), routes))

    async def dispatch(self, moves: Sequence[Dispatch]) -> list[Placement | None]:
        return await self._write(lambda connection: self._dispatch(connection, moves))

    async def overdue(self, agent: str, limit: int) -> list[Placement]:
        return await self._write(lambda connection: self._overdue(connection, agent, max(limit, 0)))

    async def dispatched(self, ids: Sequence[tuple[str, int]]) -> int:
        return await self._write(lambda connection: self._dispatched(connection, ids))

    async def on_agent(self, agent: str, after_id: str, limit: int) -> list[InventoryItem]:
        given = {"served": agent, "after_id": after_id or NO_ID, "most": max(limit, 0)}
        return await self._read(
            lambda connection: [
                InventoryItem(row.id, row.epoch, row.version) for row in connection.execute(self._on_agent_query, given)
            ],
            at_once=True,
        )

    async def cancel(self, ids: Sequence[str], versions: Sequence[int] | None = None) -> list[HeldAnswer]:
        def change(connection: Connection) -> list[HeldAnswer]:
            now_us = self._engine.now_us(connection)
            return self._change(connection, ids, WAITING, lambda job: cancelled(job, now_us)[0], versions)

        return await self._write(change)

    async def redrive(
        self, ids: Sequence[str], due_us: int, fresh: bool, versions: Sequence[int] | None = None
    ) -> list[HeldAnswer]:
        def change(connection: Connection) -> list[HeldAnswer]:
            return self._change(connection, ids, REDRIVABLE, lambda job: redriven(job, due_us, fresh), versions)

        return await self._write(change)

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

    @cached_property
    def _on_agent_query(self) -> Executable:
        job = self._tables.job
        there = and_(
            job.c.id > bindparam("after_id"),
            job.c.agent == bindparam("served"),
            job.c.state.in_(sorted(ON_AGENTS)),
        )
        return select(job.c.id, job.c.epoch, job.c.version).where(there).order_by(job.c.id).limit(bindparam("most"))

    def _hand_off(self, connection: Connection, before_us: int, limit: int, routes: Routes) -> HandedOff:
        given = {"before_us": before_us, "most": limit}
        jobs = {(job := job_of(row)).id: job for row in connection.execute(self._taken_query, given).mappings()}
        until_us = self._engine.now_us(connection) + DISPATCH_US
        placements = []
        by_agent: defaultdict[str, list[str]] = defaultdict(list)
        for move in routed(jobs.values(), routes):
            job = handed_off(jobs[move.id], move.agent)
            placements.append(Placement(job, until_us, move.put_deadline_us))
            by_agent[move.agent].append(job.id)
        if self._leave is None:
            self._leave = self._leaving(connection)
        for agent, members in by_agent.items():
            at = {"to_agent": agent, "until_us": until_us, "deadline_us": routes.agents[agent]}
            for chunk in chunks(members):
                connection.execute(self._leave, at | ids_given(connection, chunk))
        return HandedOff(tuple(placements), len(jobs))

    @cached_property
    def _taken_query(self) -> Select[Any]:
        return self._due_query.with_for_update(skip_locked=True)

    def _leaving(self, connection: Connection) -> Update:
        """What `handed_off` says, for rows that are locked: none of them is sent back whole."""
        job = self._tables.job
        changed = {
            job.c.state: JobState.DISPATCHING.value,
            job.c.epoch: job.c.epoch + 1,
            job.c.version: job.c.version + 1,
            job.c.claim_seq: 0,
            job.c.agent: bindparam("to_agent"),
            job.c.dispatch_until_us: bindparam("until_us"),
            job.c.put_deadline_us: bindparam("deadline_us"),
        }
        return update(job).where(among_given(connection, job.c.id)).values(changed)

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
                # Hidden from the planner of Postgres: whatever the ids, its generic plan walks all that is dispatching
                # by the partial index. With 10,000 there a batch of 500 took a second, and takes 0.1.
                func.nullif(job.c.state, "") == DISPATCHING,
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
        self,
        connection: Connection,
        ids: Sequence[str],
        allowed: frozenset[JobState],
        into: Callable[[Job], Job],
        versions: Sequence[int] | None,
    ) -> list[HeldAnswer]:
        known, wanted = self._rows.known(connection, ids, lock=True), expected(ids, versions)
        answers, changed = [], {}
        for job_id in ids:
            job = known.get(job_id)
            if job is not None and job.state in allowed and wanted.get(job_id, job.version) == job.version:
                changed[job_id] = known[job_id] = into(job)
                answers.append(HeldAnswer.CHANGED)
            else:
                answers.append(held_answer(None if job is None else job.state))
        self._rows.write(connection, [Placement(job) for job in changed.values()])
        return answers
