"""Held jobs and their hand-off, in memory."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from jobmaster.contracts.decisions import amended, cancelled
from jobmaster.contracts.entries import Dispatch, HandedOff, HeldAnswer, Placement, Routes
from jobmaster.contracts.values import AmendAnswer, Amendment, InventoryItem, PutAnswer
from jobmaster.master.memory.tables import MemoryPart, Tables
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
from jobmaster.model.job import Job
from jobmaster.model.states import JobState


class MemoryJobs(MemoryPart):
    async def insert(self, placements: Sequence[Placement]) -> list[PutAnswer]:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            return [_insert(rows, item) for item in [new_placement(item, now_us) for item in placements]]

    async def due(self, before_us: int, limit: int) -> list[Job]:
        with self._rows() as rows:
            held = (item.job for item in rows.live.values() if item.job.state is JobState.HELD)
            return sorted((job for job in held if job.due_us <= before_us), key=lambda job: (job.due_us, job.id))[
                : max(limit, 0)
            ]

    async def hand_off(self, before_us: int, limit: int, routes: Routes) -> HandedOff:
        jobs = await self.due(before_us, limit)
        placed = await self.dispatch(routed(jobs, routes))
        return HandedOff(tuple(item for item in placed if item is not None), len(jobs))

    async def dispatch(self, moves: Sequence[Dispatch]) -> list[Placement | None]:
        with self._rows() as rows:
            until_us = self._clock.wall_us() + DISPATCH_US
            return [_dispatch(rows, move, until_us) for move in moves]

    async def overdue(self, agent: str, limit: int) -> list[Placement]:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            late = sorted(
                (item.dispatch_until_us, item.job.id)
                for item in rows.live.values()
                if item.job.state is JobState.DISPATCHING
                and item.job.agent == agent
                and item.dispatch_until_us is not None
                and item.dispatch_until_us < now_us
            )[: max(limit, 0)]
            for _, job_id in late:
                rows.live[job_id] = replace(rows.live[job_id], dispatch_until_us=now_us + DISPATCH_US)
            return [rows.live[job_id] for _, job_id in late]

    async def on_agent(self, agent: str, after_id: str, limit: int) -> list[InventoryItem]:
        with self._rows() as rows:
            there = sorted(
                job_id
                for job_id, item in rows.live.items()
                if job_id > after_id and item.job.agent == agent and item.job.state in ON_AGENTS
            )[: max(limit, 0)]
            return [
                InventoryItem(job_id, rows.live[job_id].job.epoch, rows.live[job_id].job.version) for job_id in there
            ]

    async def dispatched(self, ids: Sequence[tuple[str, int]]) -> int:
        with self._rows() as rows:
            arrived = 0
            for job_id, epoch in ids:
                item = rows.live.get(job_id)
                if item is not None and item.job.state is JobState.DISPATCHING and item.job.epoch == epoch:
                    rows.live[job_id] = Placement(replace(item.job, state=JobState.QUEUED))
                    arrived += 1
            return arrived

    async def cancel(self, ids: Sequence[str], versions: Sequence[int] | None = None) -> list[HeldAnswer]:
        now_us = self._clock.wall_us()
        return self._change(ids, WAITING, lambda job: cancelled(job, now_us)[0], versions)

    async def redrive(
        self, ids: Sequence[str], due_us: int, fresh: bool, versions: Sequence[int] | None = None
    ) -> list[HeldAnswer]:
        return self._change(ids, REDRIVABLE, lambda job: redriven(job, due_us, fresh), versions)

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        with self._rows() as rows:
            answers = []
            for item in items:
                job = rows.known(item.id)
                answer = amend_answer(job, item)
                if job is not None and answer is AmendAnswer.CHANGED:
                    rows.write(amended(job, item))
                answers.append(answer)
            return answers

    def _change(
        self,
        ids: Sequence[str],
        allowed: frozenset[JobState],
        into: Callable[[Job], Job],
        versions: Sequence[int] | None,
    ) -> list[HeldAnswer]:
        wanted = expected(ids, versions)
        with self._rows() as rows:
            answers = []
            for job_id in ids:
                job = rows.known(job_id)
                if job is not None and job.state in allowed and wanted.get(job_id, job.version) == job.version:
                    rows.write(into(job))
                    answers.append(HeldAnswer.CHANGED)
                else:
                    answers.append(held_answer(None if job is None else job.state))
            return answers


def _insert(rows: Tables, item: Placement) -> PutAnswer:
    known = rows.known(item.job.id)
    if known is not None:
        return insert_answer(known, item.job)
    rows.write(item.job, item)
    return PutAnswer.STORED


def _dispatch(rows: Tables, move: Dispatch, until_us: int) -> Placement | None:
    item = rows.live.get(move.id)
    if item is None or item.job.state is not JobState.HELD or item.job.version != move.version:
        return None
    placement = Placement(handed_off(item.job, move.agent), until_us, move.put_deadline_us)
    rows.write(placement.job, placement)
    return placement
