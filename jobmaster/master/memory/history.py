"""Reading jobs and runs, and forgetting them, in memory."""

from collections import Counter
from collections.abc import Sequence

from jobmaster.contracts.entries import EVERYTHING, Expiry, Forgotten, HeldAnswer, StateCount
from jobmaster.contracts.filters import matches
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.master.memory.tables import MemoryPart, Tables
from jobmaster.master.parts import FAR
from jobmaster.master.rules import check_page, expected, held_answer
from jobmaster.model.job import Job, Run


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
                StateCount(state, lane, min(count, cap), True) if count > cap else StateCount(state, lane, count)
                for (state, lane), count in sorted(tally.items())
            ]

    async def delete(self, ids: Sequence[str], versions: Sequence[int] | None = None) -> list[HeldAnswer]:
        wanted = expected(ids, versions)
        with self._rows() as rows:
            answers = []
            for job_id in ids:
                job = rows.known(job_id)
                if job is not None and job.terminal and wanted.get(job_id, job.version) == job.version:
                    answers.append(HeldAnswer.CHANGED)
                    _forget(rows, job_id)
                else:
                    answers.append(held_answer(None if job is None else job.state))
            return answers

    async def forget(self, kept: Sequence[tuple[Expiry, int]]) -> Forgotten:
        return Forgotten()

    async def prune(self, before_us: int, limit: int, which: Expiry = EVERYTHING, below: str | None = None) -> int:
        with self._rows() as rows:
            old = [
                job.id
                for job in rows.history.values()
                if job.finished_us is not None
                and job.finished_us < before_us
                and (below is None or not below <= job.id < FAR)
                and job.state in which.states
                and which.matches(job.handler)
            ]
            for job_id in old[: max(limit, 0)]:
                _forget(rows, job_id)
            if which.jobs_only:
                return len(old[: max(limit, 0)])
            for event in [event for event in rows.events.values() if event.at_us < before_us][: max(limit, 0)]:
                del rows.events[event.id]
            for key in [key for key in rows.occurrences if key[1] < before_us][: max(limit, 0)]:
                del rows.occurrences[key]
            for worker in [worker for worker, (_, card) in rows.workers.items() if card.beat_us < before_us]:
                del rows.workers[worker]
            for operation, _, _ in list(rows.operations.values()):
                if operation.finished_us is not None and operation.finished_us < before_us:
                    del rows.operations[operation.id]
            return len(old[: max(limit, 0)])


def _ids(rows: Tables) -> set[str]:
    return rows.live.keys() | rows.history.keys()


def _forget(rows: Tables, job_id: str) -> None:
    rows.live.pop(job_id, None)
    rows.history.pop(job_id, None)
    rows.runs.pop(job_id, None)
