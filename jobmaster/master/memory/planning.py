"""Planning ticks, and who does it, in memory."""

from collections.abc import Sequence

from msgspec.structs import replace

from jobmaster.contracts.scheduling import (
    Planning,
    PlanReport,
    Schedule,
    ScheduleState,
    Soonest,
    Term,
)
from jobmaster.master.memory.tables import MemoryPart, Tables
from jobmaster.master.planning import Batch, Rows, TickWriter, covered, draw_up, jumped, report, servable
from jobmaster.model.ids import occurrence_id


class MemoryPlanning(MemoryPart):
    async def soonest(self, agents: Sequence[str]) -> Soonest:
        with self._rows() as rows:
            return Soonest(self._clock.wall_us(), _soonest(rows, frozenset(agents)))

    async def plan(self, planning: Planning) -> PlanReport:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            if jumped(planning, now_us):
                return PlanReport(now_us=now_us, jumped=True)
            due = [entry for entry in _active(rows) if entry.look_us <= now_us]
            due.sort(key=lambda entry: (entry.look_us, entry.key.encode()))
            batch = Batch(servable(due, planning)[: max(planning.limit, 0)], planning, now_us)
            batch.decide({job_id: job for job_id in batch.last_jobs if (job := rows.known(job_id)) is not None})
            jobs = {job_id: job for job_id in batch.job_ids if (job := rows.known(job_id)) is not None}
            drawn = draw_up(batch, rows.occurrences, jobs)
            _write(rows, drawn)
            return report(batch, drawn, _soonest(rows, frozenset(covered(planning))))

    async def backfill(self, key: str, ticks: Sequence[int], planning: Planning) -> PlanReport:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            schedule = rows.schedules.get(key)
            batch, drawn = Batch([], planning, now_us), Rows()
            if schedule is not None and servable([schedule], planning):
                writer = TickWriter(planning, now_us, drawn)
                ids = [occurrence_id(key, tick_us) for tick_us in ticks]
                jobs = {job_id: job for job_id in ids if (job := rows.known(job_id)) is not None}
                for tick_us in ticks:
                    writer.run(schedule, tick_us, rows.occurrences.get((key, tick_us)), jobs, note="backfill")
            _write(rows, drawn)
            return report(batch, drawn, None)

    async def lead(self, duty: str, node: str, ttl_us: int) -> Term:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            term = rows.terms.get(duty)
            if term is None or term.holder == node or term.until_us <= now_us:
                number = 1 if term is None else term.number + (term.holder != node)
                term = rows.terms[duty] = Term(node, number, now_us + ttl_us, now_us)
            return replace(term, now_us=now_us)

    async def resign(self, duty: str, node: str) -> None:
        with self._rows() as rows:
            term = rows.terms.get(duty)
            if term is not None and term.holder == node:
                rows.terms[duty] = replace(term, until_us=0)


def _active(rows: Tables) -> list[Schedule]:
    return [entry for entry in rows.schedules.values() if entry.state is ScheduleState.ACTIVE]


def _soonest(rows: Tables, agents: frozenset[str]) -> int | None:
    served = [entry.look_us for entry in _active(rows) if entry.agent is None or entry.agent in agents]
    return min(served, default=None)


def _write(rows: Tables, drawn: Rows) -> None:
    for occurrence in (*drawn.new, *drawn.renewed):
        rows.occurrences[occurrence.schedule, occurrence.tick_us] = occurrence
    for placement in (*drawn.placements, *drawn.replaced):
        rows.write(placement.job, placement)
    for _, after in drawn.moved:
        rows.schedules[after.key] = after
