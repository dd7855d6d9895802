"""Several processes on one file: nothing twice, nothing lost, whoever dies where."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jobmaster.contracts.values import SettleAnswer
from jobmaster.model.errors import Refused
from jobmaster.model.ids import new_id
from jobmaster.sqlite import open_database
from jobmaster.sqlite.lock import FileLock, has_wal_reset_defect
from jobmaster_agents.sqlite import SqliteAgent
from jobmaster_agents.sqlite import workers as workers_module
from tests.sizes import SIZES
from tests.support import eventually
from tests.unit.sqlite.child import HANDLERS, NEVER_US, TTL_US, card, make_job, open_agent, success

ROOT = Path(__file__).resolve().parents[3]
CRASHED = 137


class Child:
    """A running child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def said(self) -> Any:
        """The next line, decoded."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert line, "the child ended without a word"
        return json.loads(line)

    async def ended(self) -> int:
        if self.process.stdin is not None:
            self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), 30)


@asynccontextmanager
async def child(file: Path, verb: str, failpoints: str = "") -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.unit.sqlite.child",
        str(file),
        verb,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'agents'}", "JOBMASTER_FAILPOINTS": failpoints},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest_asyncio.fixture
async def agent(file: Path) -> AsyncIterator[SqliteAgent]:
    agent = open_agent(str(file))
    await agent.open()
    yield agent
    await agent.close()


@pytest.mark.asyncio
async def test_two_processes_never_get_one_job(file: Path, agent: SqliteAgent) -> None:
    jobs = [make_job() for _ in range(1_000)]
    await agent.put(jobs, NEVER_US)
    mine: list[str] = []
    async with child(file, "drain") as other:
        assert await other.said() == "ready"
        while claimed := await agent.claim("w", {"default": 3}, HANDLERS, 3, TTL_US):
            mine += [job.id for job in claimed]
            assert set(await agent.settle([success(job) for job in claimed])) == {SettleAnswer.ACCEPTED}
        theirs = await other.said()
        assert await other.ended() == 0
    # Whoever was quicker, the other got a share: the lock is fair.
    assert theirs
    assert sorted(mine + theirs) == sorted(job.id for job in jobs)
    assert len(await agent.changes(2_000)) == 1_000
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("verb", "failpoint", "rows", "records"),
    [
        ("put", "enqueue.before_commit", 0, 0),
        ("put", "enqueue.after_commit", 1, 0),
        ("settle", "claim.after_commit", 1, 0),
        ("settle", "settle.before_commit", 1, 0),
        ("settle", "settle.after_commit", 0, 1),
        ("release", "release.after_commit", 1, 0),
    ],
)
@pytest.mark.asyncio
async def test_what_was_committed_before_a_crash_is_there_and_nothing_else(
    file: Path, agent: SqliteAgent, verb: str, failpoint: str, rows: int, records: int
) -> None:
    if verb != "put":
        await agent.put([make_job()], NEVER_US)
    async with child(file, verb, f"{failpoint}:crash") as other:
        assert await other.process.wait() == CRASHED
    assert len(await agent.inventory("", 10)) == rows
    assert len(await agent.changes(10)) == records


@pytest.mark.asyncio
async def test_a_settle_lost_in_a_crash_may_be_repeated_by_whoever_knows_the_token(
    file: Path, agent: SqliteAgent
) -> None:
    job = make_job()
    await agent.put([job], NEVER_US)
    async with child(file, "settle", "settle.before_commit:crash") as other:
        job_id, token = await other.said()
        assert await other.process.wait() == CRASHED
    [held] = await agent.find([job_id])
    assert held is not None
    assert held.token == token
    assert await agent.settle([success(held)]) == [SettleAnswer.ACCEPTED]


@pytest.mark.asyncio
async def test_a_killed_worker_loses_its_leases_at_once_and_a_living_one_keeps_them(
    file: Path, agent: SqliteAgent
) -> None:
    await agent.put([make_job()], NEVER_US)
    async with child(file, "claim") as other:
        [job_id] = await other.said()
        assert (await agent.reap(10, expired=False)).requeued == 0
        os.kill(other.process.pid, signal.SIGSTOP)
        assert (await agent.reap(10, expired=False)).requeued == 0
        other.process.kill()
        await other.process.wait()
    assert [found.id for found in await agent.workers()] == ["holder"]
    assert (await agent.reap(10, expired=False)).requeued == 1
    [job] = await agent.find([job_id])
    assert job is not None
    assert job.suspect
    assert await agent.workers() == []


@pytest.mark.asyncio
async def test_a_recycled_process_number_is_not_taken_for_the_worker(
    agent: SqliteAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.put([make_job()], NEVER_US)
    await agent.register(card("w1", os.getpid()))
    assert len(await agent.claim("w1", {"default": 1}, HANDLERS, 1, TTL_US)) == 1
    assert (await agent.reap(10, expired=False)).requeued == 0
    mark = workers_module.process_mark(os.getpid())
    monkeypatch.setattr(workers_module, "process_mark", lambda pid: f"{mark}0")
    assert (await agent.reap(10, expired=False)).requeued == 1


@pytest.mark.asyncio
async def test_nobody_in_another_container_is_declared_dead(
    agent: SqliteAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.put([make_job()], NEVER_US)
    monkeypatch.setattr(workers_module, "process_mark", lambda pid: "pid:[1] 42")
    await agent.register(card("w1", os.getpid()))
    await agent.claim("w1", {"default": 1}, HANDLERS, 1, TTL_US)
    assert (await agent.reap(10, expired=False)).requeued == 0


@pytest.mark.asyncio
async def test_a_put_by_another_process_ends_a_wait(file: Path, agent: SqliteAgent) -> None:
    await agent.wait(frozenset({"default"}), 0.0)
    waiting = asyncio.ensure_future(agent.wait(frozenset({"default"}), 30.0))
    async with child(file, "put") as other:
        [job_id] = await other.said()
        await asyncio.wait_for(waiting, 25)
    assert [job.id for job in await agent.claim("w", {"default": 1}, HANDLERS, 1, TTL_US)] == [job_id]


@pytest.mark.asyncio
async def test_an_end_in_another_process_ends_a_watch(file: Path, agent: SqliteAgent) -> None:
    job = make_job()
    await agent.put([job], NEVER_US)
    watching = asyncio.ensure_future(agent.watch(frozenset({job.id}), 30.0))
    async with child(file, "drain") as other:
        assert await other.said() == "ready"
        assert await other.said() == [job.id]
        await asyncio.wait_for(watching, 25)
    # Asked after the end, it does not wait at all; asked about a stranger, it does.
    await asyncio.wait_for(agent.watch(frozenset({job.id}), 30.0), 5)
    stranger = asyncio.ensure_future(agent.watch(frozenset({new_id()}), 30.0))
    await agent.store_now_us()
    assert not stranger.done()
    stranger.cancel()


@pytest.mark.parametrize("verb", ["hold", "lock"])
@pytest.mark.asyncio
async def test_while_another_process_holds_the_file_writes_are_refused_and_reads_go_on(file: Path, verb: str) -> None:
    if verb == "lock" and not has_wal_reset_defect(sqlite3.sqlite_version_info):
        pytest.skip("this SQLite needs no lock file")
    # The first to open decides how long to be patient; an agent's five seconds would make a slow test.
    database = open_database(str(file), busy_seconds=0.2)
    agent = open_agent(str(file))
    await agent.open()
    async with child(file, verb) as other:
        await other.said()
        with pytest.raises(Refused, match="another process"):
            await agent.put([make_job()], NEVER_US)
        assert await agent.inventory("", 10) == []
        assert await other.ended() == 0
    await agent.put([make_job()], NEVER_US)
    assert len(await agent.inventory("", 10)) == 1
    await agent.close()
    database.close()


@pytest.mark.asyncio
async def test_a_writer_that_is_never_idle_lets_others_have_their_turn(file: Path) -> None:
    lock = FileLock(f"{file}.lock")
    for _ in range(3):
        async with child(file, "hog") as other:
            await other.said()
            began = time.monotonic()
            await asyncio.to_thread(lock.acquire, 30.0)
            lock.release()
            # Some 5 ms with turns, some 2 s without.
            assert time.monotonic() - began < 0.5
    lock.close()


@pytest.mark.slow
@pytest.mark.asyncio
async def test_a_file_held_longer_than_anybody_waits_is_written_to_again_without_an_operator(
    file: Path, agent: SqliteAgent
) -> None:
    job = make_job()

    async def stored() -> bool:
        try:
            return bool(await agent.put([job], NEVER_US))
        except Refused:
            return False

    async with child(file, "hold") as other:
        await other.said()
        asyncio.get_running_loop().call_later(SIZES.locked_seconds, other.process.kill)
        await eventually(stored, within=SIZES.locked_seconds + 20)
    assert len(await agent.inventory("", 10)) == 1


@pytest.mark.asyncio
async def test_a_full_file_refuses_new_jobs_but_settles_once_there_is_room(agent: SqliteAgent) -> None:
    database = agent.verbs.store.database
    await agent.put([make_job()], NEVER_US)
    [job] = await agent.claim("w", {"default": 1}, HANDLERS, 1, TTL_US)
    pages = await database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(Refused, match="disk is full, or PRAGMA max_page_count"):
        await agent.put([make_job() for _ in range(1_000)], NEVER_US)
    assert len(await agent.inventory("", 10)) == 1
    await database.write(lambda c: c.execute("PRAGMA max_page_count = 1000000"))
    assert await agent.settle([success(job)]) == [SettleAnswer.ACCEPTED]


def test_the_versions_with_the_wal_reset_defect_are_known() -> None:
    affected = {(3, 7, 0), (3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)}
    repaired = {(3, 6, 23), (3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 51, 3), (3, 52, 0), (4, 0, 0)}
    assert {version for version in affected | repaired if has_wal_reset_defect(version)} == affected
