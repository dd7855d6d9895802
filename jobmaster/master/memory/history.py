"""Reading jobs and runs, and forgetting them, in memory."""

from collections import Counter
from collections.abc import Sequence

from jobmaster.contracts.entries import HeldAnswer, StateCount
from jobmaster.contracts.filters import matches
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.master.memory.tables import MemoryPart, Tables
from jobmaster.master.rules import check_page, held_answer
from jobmaster.model.job import Job, Run
from jobmaster.model.states import TERMINAL


class MemoryHistory(MemoryPart):
    async def get(self, ids: Sequence[str]) -> list[Job | None]:
        with self._rows() as rows:
            return [rows.known(job_id) for job_id in ids]

    async def runs(self, job_id: str) -> list[Run]:
        with self._rows() as rows:
            return [run for _, run in sorted(rows.runs.get(job_id, {}).items())]

    async def page(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        check_page(cursor, limit)
        with self._rows() as rows:
            ids = sorted((job_id for job_id in _ids(rows) if cursor is None or job_id < cursor), reverse=True)
            jobs = [job for job in map(rows.known, ids) if job is not None and matches(where, job)]
            more = len(jobs) > limit
            return Page(jobs[:limit], jobs[limit - 1].id if more else None)

    async def counts(self, cap: int) -> list[StateCount]:
        with self._rows() as rows:
            jobs = [job for job in map(rows.known, _ids(rows)) if job is not None]
            tally = Counter((job.state, job.lane) for job in jobs)
            return [
                StateCount(state, lane, min(count, cap), True)
                if state in TERMINAL and count > cap
                else StateCount(state, lane, count)
                for (state, lane), count in sorted(tally.items())
            ]

    async def delete(self, ids: Sequence[str]) -> list[HeldAnswer]:
        with self._rows() as rows:
            answers = []
            for job_id in ids:
                state = rows.state_of(job_id)
                answers.append(HeldAnswer.CHANGED if state in TERMINAL else held_answer(state))
                if state in TERMINAL:
                    _forget(rows, job_id)
            return answers

    async def prune(self, before_us: int, limit: int) -> int:
        with self._rows() as rows:
            old = [
                job.id for job in rows.history.values() if job.finished_us is not None and job.finished_us < before_us
            ]
            for job_id in old[: max(limit, 0)]:
                _forget(rows, job_id)
            for key in [key for key in rows.occurrences if key[1] < before_us][: max(limit, 0)]:
                del rows.occurrences[key]
            for worker in [worker for worker, (_, card) in rows.workers.items() if card.beat_us < before_us]:
                del rows.workers[worker]
            return len(old[: max(limit, 0)])


def _ids(rows: Tables) -> set[str]:
    return rows.live.keys() | rows.history.keys()


def _forget(rows: Tables, job_id: str) -> None:
    rows.live.pop(job_id, None)
    rows.history.pop(job_id, None)
    rows.runs.pop(job_id, None)
