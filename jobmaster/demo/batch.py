"""One batch: what is enqueued for a tree, and how a later run finds an unfinished one.

Every job of a batch has an id derived from the batch and what it is for, so that enqueueing again what a killed run had
already enqueued changes nothing. The summary job goes in first and ends last: as long as it is open, so is its batch,
and it carries the tree's root.
"""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from jobmaster import Priority
from jobmaster.cli.render import inert
from jobmaster.demo.census import OPEN, TAG, batch_tag
from jobmaster.demo.handlers import Batch, DevelopFilm, ReadFile, Reel, SourceFile, Summarise, Tick
from jobmaster.enqueue import Enqueue
from jobmaster.scheduler import Scheduler

SUMMARY_AFTER = timedelta(seconds=3)
TICK_EVERY = timedelta(seconds=1)
TICK_KEY = "demo-tick"
FLAKY, DOOMED = 2, 1_000
FILMS = (
    ("Nosferatu", Priority.MEDIUM),
    ("Sunrise", Priority.MEDIUM),
    ("Metropolis", Priority.HIGH),
    ("The General", Priority.HIGH),
    ("Safety Last", Priority.HIGH),
)


def job_id(batch: str, purpose: str) -> str:
    """The id of the batch's job for this purpose: the same in every run."""
    return str(uuid.uuid5(uuid.UUID(batch), purpose))


async def unfinished(scheduler: Scheduler) -> Batch | None:
    """The batch that an earlier run left open, if any."""
    cursor: str | None = None
    while True:
        page = await scheduler.list(tag=TAG, handler="summarise", state=OPEN, cursor=cursor, limit=1)
        for job in page.jobs:
            return Batch(**job.data)
        cursor = page.cursor
        if cursor is None:
            return None


async def begin(scheduler: Scheduler, batch: Batch) -> None:
    """Enqueue the batch's summary and its films, if they are not there yet, and start the schedule."""
    await scheduler.once_after(
        Summarise,
        SUMMARY_AFTER,
        batch,
        id=job_id(batch.batch, "summary"),
        title=inert(f"Summary of {batch.root}")[:200],
        tags=(TAG, batch_tag(batch.batch)),
    )
    await scheduler.many(
        Enqueue(
            DevelopFilm,
            Reel(title),
            id=job_id(batch.batch, f"film:{title}"),
            priority=priority,
            title=title,
            tags=(TAG, batch_tag(batch.batch)),
        )
        for title, priority in FILMS
    )
    await scheduler.recurring(Tick, TICK_EVERY, key=TICK_KEY)


def file_jobs(batch: Batch, files: Iterator[Path], known: frozenset[str]) -> Iterator[Enqueue]:
    """One job per file, without those already known: the first fails twice before it succeeds, the second always."""
    for index, path in enumerate(files):
        name = str(path)
        id_ = job_id(batch.batch, f"file:{name}")
        if id_ not in known:
            failures = {0: FLAKY, 1: DOOMED}.get(index, 0)
            yield Enqueue(ReadFile, SourceFile(name, failures), id=id_, tags=(TAG, batch_tag(batch.batch)))
