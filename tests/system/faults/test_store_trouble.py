"""A file that somebody else holds, and one that is full: honest errors, and recovery without an operator."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from jobmaster import ClusterBuilder, JobContext, JobHandler, JobState, Refused, Runtime
from jobmaster.sqlite.database import open_database
from tests.sizes import SIZES
from tests.support import eventually

HOLDER = Path(__file__).with_name("holder.py")


class Note(JobHandler):
    async def execute(self, job: JobContext) -> int:
        return len(str(job.data.get("text", "")))


def cluster(file: Path) -> ClusterBuilder:
    return ClusterBuilder("trouble").add_handlers(Note).use_master(f"sqlite:///{file}").log(level="error")


def hold(file: Path) -> subprocess.Popen[str]:
    """Another process that holds the file."""
    command = [sys.executable, str(HOLDER), str(file), str(SIZES.locked_seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def enqueue_somehow(runtime: Runtime) -> tuple[str | None, BaseException | None]:
    try:
        return (await runtime.scheduler.once_now(Note)).id, None
    except Refused as error:
        return None, error


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_a_file_held_by_another_process_recovers_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "trouble.db"
    async with cluster(file).build().run() as runtime:
        before = await runtime.scheduler.once_now(Note)
        await before.result(timeout=30)

        began = time.monotonic()
        holder = hold(file)
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
        answers = [await enqueue_somehow(runtime)]
        while holder.poll() is None:
            answers.append(await enqueue_somehow(runtime))
        holder.stdout.close()
        assert holder.returncode == 0
        assert time.monotonic() - began >= SIZES.locked_seconds

        refusals = [str(error) for _, error in answers if error is not None]
        assert all(str(file) in text and "locked" in text for text in refusals), refusals
        after = await runtime.scheduler.once_now(Note)
        for job_id in [*(job_id for job_id, _ in answers if job_id is not None), after.id]:
            assert await runtime.scheduler.result(job_id, timeout=20) == 0
        counts = await runtime.scheduler.counts()
        assert counts.total(JobState.FAILED) == 0


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_a_full_file_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "trouble.db"
    async with cluster(file).build().run() as runtime:
        done = await runtime.scheduler.once_now(Note)
        await done.result(timeout=30)
        later = await runtime.scheduler.once_after(Note, timedelta(seconds=2), {"text": "kept"})

        database = open_database(str(file))
        try:
            await database.write(limit_pages)
            accepted: list[str] = []
            with pytest.raises(Refused, match="full") as refusal:
                await fill(runtime, accepted)
            assert str(file) in str(refusal.value)
            assert (await runtime.scheduler.get(accepted[-1])).state is JobState.QUEUED
            await database.write(lift_limit)
        finally:
            await asyncio.to_thread(database.close)

        assert await later.result(timeout=20) == len("kept")
        fresh = await runtime.scheduler.once_now(Note, {"text": "again"})
        assert await fresh.result(timeout=20) == len("again")
        await eventually(lambda: all(health.failures == 0 for health in runtime.health.values()), within=20)


async def fill(runtime: Runtime, accepted: list[str]) -> None:
    """Enqueue until it is refused."""
    for _ in range(10_000):
        job = await runtime.scheduler.once_after(Note, timedelta(minutes=5), {"text": "x" * 10_000})
        accepted.append(job.id)


def limit_pages(connection: sqlite3.Connection) -> None:
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 20}")


def lift_limit(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA max_page_count = 1073741823")
