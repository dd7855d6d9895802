"""The move on Postgres while others write to the outbox: sequences are drawn in one order and committed in another."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
import pytest_asyncio

from jobmaster.contracts.entries import MoveReport
from jobmaster.contracts.values import OutboxRecord
from jobmaster.master import open_master
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.server_engine import ServerEngine
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters.harness import record, run_of, sample
from tests.outbox_table import COLUMNS, OUTBOX, outbox_row, server_outbox
from tests.support import eventually

AGENT = "transport-1"
INSERT = f"INSERT INTO {OUTBOX} ({', '.join(COLUMNS)}) VALUES ({', '.join(f'${n + 1}' for n in range(len(COLUMNS)))})"


@pytest_asyncio.fixture
async def master(postgres_url: str) -> AsyncIterator[SqlMaster]:
    opened = open_master(postgres_url, cluster="test", clock=ManualClock())
    assert isinstance(opened, SqlMaster)
    await opened.open()
    engine = ServerEngine(postgres_url)
    await engine.open()
    await engine.write(server_outbox(OUTBOX).create)
    await engine.close()
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def connect(postgres_url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    connections = [await asyncpg.connect(postgres_url) for _ in range(4)]
    yield connections
    for connection in connections:
        await connection.close()


async def put(connection: asyncpg.Connection, records: Sequence[OutboxRecord]) -> None:
    await connection.executemany(INSERT, [outbox_row(entry) for entry in records])


def ended(seq: int) -> tuple[Job, OutboxRecord]:
    job = sample(JobState.SUCCEEDED)
    return job, record(job, seq, run=run_of(job))


async def waiting_for_a_lock(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


@pytest.mark.asyncio
async def test_a_record_committed_between_those_of_a_batch_is_not_lost(
    master: SqlMaster, connect: list[asyncpg.Connection]
) -> None:
    writer, late, blocker, looker = connect
    jobs, records = zip(*(ended(seq) for seq in (1, 2, 3)), strict=True)
    await put(writer, [records[0], records[2]])
    late_commit = late.transaction()
    await late_commit.start()
    await put(late, [records[1]])
    # The mover has to wait at the first job's history row, while the record between the two is committed.
    block = blocker.transaction()
    await block.start()
    history = master._tables.history.name
    await blocker.execute(
        f"INSERT INTO {history} (id, handler, lane, priority, state, epoch, claim_seq, version, created_us, due_us, "
        "original_due_us, finished_us, attempts, snoozes, interrupts, crash_count, suspect, effects, data, policy)"
        " VALUES ($1, 'h', 'l', 1, 'succeeded', 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, false, false, '', '')",
        jobs[0].id,
    )
    moving = asyncio.ensure_future(master.move(AGENT, OUTBOX, 10))
    await eventually(lambda: waiting_for_a_lock(looker), what="the mover waits")
    await late_commit.commit()
    await block.rollback()
    assert await moving == MoveReport(moved=2)
    assert await master.move(AGENT, OUTBOX, 10) == MoveReport(moved=1)
    assert await master.get([job.id for job in jobs]) == [*jobs]
    assert [len(await master.runs(job.id)) for job in jobs] == [1, 1, 1]


@pytest.mark.asyncio
async def test_a_full_batch_does_not_hide_what_is_committed_below_it(
    master: SqlMaster, connect: list[asyncpg.Connection]
) -> None:
    writer, late, *_ = connect
    jobs, records = zip(*(ended(seq) for seq in range(1, 12)), strict=True)
    late_commit = late.transaction()
    await late_commit.start()
    await put(late, records[:2])
    await put(writer, records[2:])
    assert await master.move(AGENT, OUTBOX, 4) == MoveReport(moved=4, more=True)
    await late_commit.commit()
    assert await master.move(AGENT, OUTBOX, 4) == MoveReport(moved=4, more=True)
    assert await master.move(AGENT, OUTBOX, 4) == MoveReport(moved=3)
    assert await master.get([job.id for job in jobs]) == [*jobs]


@pytest.mark.asyncio
async def test_many_writers_and_movers_lose_and_double_nothing(
    master: SqlMaster, connect: list[asyncpg.Connection], postgres_url: str
) -> None:
    other = open_master(postgres_url, cluster="test", clock=ManualClock())
    await other.open()
    jobs, records = zip(*(ended(seq) for seq in range(1, 601)), strict=True)
    writing = [asyncio.ensure_future(_write(writer, records[number::4])) for number, writer in enumerate(connect)]

    async def move(mover: SqlMaster) -> int:
        moved = 0
        while True:
            idle = all(task.done() for task in writing)
            report = await mover.move(AGENT, OUTBOX, 7)
            moved += report.moved
            if idle and not report.moved:
                return moved

    assert isinstance(other, SqlMaster)
    moved = await asyncio.gather(move(master), move(other))
    await asyncio.gather(*writing)
    await other.close()
    assert sum(moved) == 600
    assert min(moved) > 0
    assert await master.get([job.id for job in jobs]) == [*jobs]


async def _write(connection: asyncpg.Connection, records: Sequence[OutboxRecord]) -> None:
    """A few records a transaction, the seqs of which are mixed with those of other writers."""
    for start in range(0, len(records), 5):
        async with connection.transaction():
            for entry in records[start : start + 5]:
                await put(connection, [entry])
