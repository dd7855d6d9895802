"""One job, asked about: what it is, and what it came to."""

import asyncio
from typing import Any

from jobmaster.agents_open import Agents
from jobmaster.client.lookup import FAILURE_SECONDS, Lookup
from jobmaster.client.results import Results
from jobmaster.client.times import duration_us
from jobmaster.model.errors import JobCancelled, JobFailed, ResultTimeout
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.views import JobInfo, error_parts, job_info, plain, run_info


class Asking:
    """Answers about single jobs."""

    def __init__(self, lookup: Lookup, agents: Agents) -> None:
        self._lookup = lookup
        self._results = Results(lookup, agents)

    async def close(self) -> None:
        await self._results.close()

    async def get(self, job_id: str) -> JobInfo:
        """Raises `JobNotFound`, `AgentUnreachable`, `MasterUnavailable`."""
        job = await self._lookup.find(job_id)
        return job_info(job, await self._lookup.runs(job))

    async def result(self, job_id: str, timeout: float | None, near: str | None) -> Any:  # noqa: ASYNC109 - an answer
        """Raises `JobFailed`, `JobCancelled`, `ResultTimeout`, `JobNotFound`."""
        seconds = None if timeout is None else duration_us("timeout", timeout) / 1e6
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                job = await self._results.wait(job_id, near)
        except TimeoutError:
            if seconds is None or not limit.expired():
                raise
            raise ResultTimeout(job_id, seconds) from None
        if job.state is JobState.SUCCEEDED:
            return plain(job.result)
        if job.state is JobState.CANCELLED:
            raise JobCancelled(job_id)
        raise await self._failure(job)

    async def _failure(self, job: Job) -> JobFailed:
        """With the traceback of the last run where the master has it; else with what the job itself says."""
        kind, message = error_parts(job.error)
        known = await self._lookup.runs(job, FAILURE_SECONDS)
        runs = [run for run in known if run.error is not None or run.detail is not None]
        if not runs:
            return JobFailed(job.id, job.reason or "failed", kind, message)
        last = run_info(runs[-1])
        return JobFailed(
            job.id, job.reason or "failed", last.error_type or kind, last.message or message, last.traceback
        )
