"""Counting the demonstration's jobs: through the scheduler, as an application would."""

from collections.abc import AsyncIterator

from jobmaster.model.states import TERMINAL, JobState
from jobmaster.scheduler import Scheduler
from jobmaster.views import JobInfo

TAG = "demo"


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

    async def jobs(
        self, batch: str, handler: str | None = None, state: JobState | None = None
    ) -> AsyncIterator[JobInfo]:
        """Every job of a batch, page by page."""
        cursor: str | None = None
        while True:
            page = await self._ask().list(tag=batch_tag(batch), handler=handler, state=state, cursor=cursor, limit=500)
            for job in page.jobs:
                yield job
            cursor = page.cursor
            if cursor is None:
                return

    async def files_open(self, batch: str) -> bool:
        """Whether a file job of the batch has not ended."""
        for state in JobState:
            if state not in TERMINAL:
                page = await self._ask().list(tag=batch_tag(batch), handler="read-file", state=state, limit=1)
                if page.jobs:
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
