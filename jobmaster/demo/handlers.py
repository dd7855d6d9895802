"""The demonstration's jobs: ordinary handlers, as an application would write them."""

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jobmaster import JobContext, JobHandler, Priority, Retry, Snooze
from jobmaster.demo.census import Census

FILES_LANE = "files"
FILMS_LANE = "films"


@dataclass
class SourceFile:
    """One file of the tree; `failures` makes that many attempts of it fail first."""

    path: str
    failures: int = 0


class ReadFile(JobHandler[SourceFile]):
    """Read, hash and count one file. Blocking, so it runs in a thread."""

    lane = FILES_LANE
    retry = Retry.fixed(timedelta(milliseconds=500), max_attempts=3)

    def execute(self, job: JobContext[SourceFile]) -> dict[str, int | str]:
        if job.attempt <= job.data.failures:
            raise OSError(f"pretending that {Path(job.data.path).name} could not be read (attempt {job.attempt})")
        content = Path(job.data.path).read_bytes()
        return {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "lines": content.count(b"\n"),
            "tokens": len(content.split()),
        }


@dataclass
class Reel:
    """A made-up film to develop."""

    title: str
    step_seconds: float = 0.2


class DevelopFilm(JobHandler[Reel]):
    """Slow work that reports how far it is, in steps of ten per cent."""

    lane = FILMS_LANE
    priority = Priority.MEDIUM

    async def execute(self, job: JobContext[Reel]) -> str:
        for percent in range(0, 100, 10):
            job.progress(percent, f"developing {job.data.title}")
            await asyncio.sleep(job.data.step_seconds)
        job.progress(100, "done")
        return job.data.title


class Tick(JobHandler):
    """The recurring one."""

    async def execute(self, job: JobContext) -> str:
        return job.due_at.isoformat()


@dataclass
class Batch:
    """One run of the demonstration over one tree."""

    batch: str
    root: str


class Summarise(JobHandler[Batch]):
    """Add up what the file jobs came to, once they and the films have ended; until then, come back later."""

    def __init__(self, census: Census) -> None:
        self._census = census

    async def execute(self, job: JobContext[Batch]) -> dict[str, int]:
        if await self._census.work_open(job.data.batch):
            raise Snooze(timedelta(milliseconds=500))
        totals: dict[str, int] = await self._census.totals(job.data.batch)
        return totals
