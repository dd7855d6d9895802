"""Counting the demonstration's jobs: through the scheduler, as an application would."""

from collections.abc import AsyncIterator

from jobmaster.client.expectation import States
from jobmaster.model.states import TERMINAL, JobState
from jobmaster.scheduler import Scheduler
from jobmaster.views import JobInfo

TAG = "demo"
OPEN = frozenset(JobState) - TERMINAL
"""Asked for at once: between two questions, one state each, a job may go from the second to the first."""


def batch_tag(batch: str) -> str:
    """The tag that all jobs of a batch carry."""
    return f"{TAG}-{batch}"


class Census:
    """Asks the scheduler it is given once the cluster runs; handlers get it before that."""

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None

    def _ask(self) -> Scheduler:
        assert self.scheduler is not None, "the demonstration's cluster is not running yet"
        return self.scheduler

    async def jobs(self, batch: str, handler: str | None = None, state: States | None = None) -> AsyncIterator[JobInfo]:
        """Every job of a batch, page by page."""
        cursor: str | None = None
        while True:
            page = await self._ask().list(tag=batch_tag(batch), handler=handler, state=state, cursor=cursor, limit=500)
            for job in page.jobs:
                yield job
            cursor = page.cursor
            if cursor is None:
                return

    async def work_open(self, batch: str) -> bool:
        """Whether a file or a film of the batch has not ended."""
        for handler in ("read-file", "develop-film"):
            async for _ in self.jobs(batch, handler, OPEN):
                return True
        return False

    async def totals(self, batch: str) -> dict[str, int]:
        """What the file jobs of a batch came to, from the audit history."""
        totals = {"files": 0, "bytes": 0, "lines": 0, "tokens": 0}
        async for job in self.jobs(batch, "read-file", JobState.SUCCEEDED):
            if isinstance(job.result, dict):
                totals["files"] += 1
                for name in ("bytes", "lines", "tokens"):
                    totals[name] += job.result[name]
        return totals
