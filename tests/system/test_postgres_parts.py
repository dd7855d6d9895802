"""The history's parts on Postgres: cut and folded beside those who read and write, and nothing goes that is to stay."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio

from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.entries import EVERYTHING, Expiry, HeldAnswer
from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import JobFilter
from jobmaster.master import open_master
from jobmaster.master.migrations import HEAD
from jobmaster.master.parts import first_id
from jobmaster.master.sql import parts_postgres, schema
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.seal import Seal, put_on
from jobmaster.model.ids import IdFactory
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.testing.masters.harness import record, run_of, sample
from tests.history_parts import divide
from tests.support import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]

PREFIX = table_prefix("test")
DAY = 86_400_000_000
KEPT = [(EVERYTHING, 10 * DAY)]


@pytest_asyncio.fixture
async def master(postgres_url: str) -> AsyncIterator[SqlMaster]:
    opened = at(postgres_url)
    await opened.open()
    yield opened
    await opened.close()


def at(url: str) -> SqlMaster:
    master = open_master(url, cluster="test", clock=SystemClock())
    assert isinstance(master, SqlMaster)
    return master


async def divided(master: SqlMaster, url: str, *days: float) -> int:
    """Make empty parts that end so many days from now, as if they had been cut in their time; now, in us."""
    now_us = await master.store_now_us()
    divide(url, PREFIX, [first_id(now_us + round(day * DAY)) for day in days])
    return now_us


def count(url: str, word: str = "history") -> int:
    """How many parts there are."""
    with psycopg.connect(url) as connection:
        text = f"SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('{PREFIX}{word}')"
        row = connection.execute(text.encode()).fetchone()
    assert row is not None
    return int(row[0])


def made(at_us: int, state: JobState = JobState.SUCCEEDED, **fields: object) -> Job:
    """A job made then, that ended a second later."""
    defaults = {"id": IdFactory(now_ms=lambda: at_us // 1_000).new(), "finished_us": at_us + 1_000_000}
    return sample(state, **(defaults | fields))


async def enter(master: SqlMaster, jobs: Sequence[Job], first_seq: int = 1) -> None:
    await master.apply("transport-1", [record(job, seq, run=run_of(job)) for seq, job in enumerate(jobs, first_seq)])


async def swept(master: SqlMaster, kept: Sequence[tuple[Expiry, int]] = KEPT) -> None:
    """What a coordinator does until nothing is left to do."""
    for _ in range(50):
        forgotten = await master.forget(kept)
        now_us = await master.store_now_us()
        pruned = [await master.prune(now_us - keep_us, 100, which, forgotten.below) for which, keep_us in kept]
        if not forgotten.more and not any(pruned):
            return
    raise AssertionError("it does not end")


async def left(master: SqlMaster, jobs: Sequence[Job]) -> list[Job]:
    return [job for job in await master.get([job.id for job in jobs]) if job is not None]


async def test_old_parts_go_whole_and_what_is_to_stay_stays(master: SqlMaster, postgres_url: str) -> None:
    now_us = await divided(master, postgres_url, -14, -13, -12, -11, 1)
    go = [made(now_us - round(days * DAY)) for days in (15, 13.5, 12.5, 11.5) for _ in range(20)]
    ended_late = made(now_us - 12 * DAY - DAY // 2, finished_us=now_us - DAY)
    failed = made(now_us - 13 * DAY - DAY // 2, JobState.FAILED)
    of_a_handler = made(now_us - 11 * DAY - DAY // 2, handler="long")
    young = made(now_us - DAY)
    stay = [ended_late, failed, of_a_handler, young]
    by_chance = [sample(JobState.SUCCEEDED, id=str(uuid4()), finished_us=now_us - DAY * days) for days in (1, 11)]
    await enter(master, [*go, *stay, *by_chance])
    live = made(now_us - 12 * DAY - DAY // 2, JobState.QUEUED, finished_us=None)
    await enter(master, [live], first_seq=900)
    assert len(await master.runs(live.id)) == 1
    succeeded, failures = frozenset({JobState.SUCCEEDED}), frozenset({JobState.FAILED})
    kept = [
        (Expiry(succeeded, besides=frozenset({"long"}), jobs_only=True), 10 * DAY),
        (Expiry(succeeded, handler="long", jobs_only=True), 20 * DAY),
        (Expiry(failures, jobs_only=True), 30 * DAY),
    ]
    assert count(postgres_url) == count(postgres_url, "run") == 7
    await swept(master, kept)
    assert count(postgres_url) == count(postgres_url, "run") == 4, "first, the one between, ahead, far"
    assert await left(master, go) == []
    assert await left(master, stay) == stay
    assert await left(master, by_chance) == by_chance[:1]
    assert [len(await master.runs(job.id)) for job in [*go, *stay, live]] == [0] * len(go) + [1] * 5
    pages = await master.page(JobFilter(states=failures), None, 10)
    assert [job.id for job in pages.jobs] == [failed.id]
    # What is left goes in its own time, one by one; and can be changed as ever.
    assert await master.redrive([failed.id], now_us, fresh=False) == [HeldAnswer.CHANGED]
    await swept(master, [(EVERYTHING, DAY // 2)])
    assert await left(master, [ended_late, of_a_handler]) == []


async def test_nothing_is_divided_where_everything_is_kept(master: SqlMaster, postgres_url: str) -> None:
    assert (await master.forget([])).below is None
    assert (await master.forget([(Expiry(states=frozenset()), 1)])).below is None
    assert count(postgres_url) == 3


async def test_parts_are_cut_beside_writers_who_lose_nothing(master: SqlMaster, postgres_url: str) -> None:
    other = at(postgres_url)
    await other.open()
    entered: list[Job] = []
    cut = asyncio.Event()

    async def write() -> None:
        while not cut.is_set():
            now_us = await master.store_now_us()
            # From yesterday to the day after tomorrow: on both sides of every cut.
            jobs = [made(now_us + round(days * DAY)) for days in (-1, 0, 0.3, 1, 1.5, 2)]
            await enter(master, jobs, len(entered) + 1)
            entered.extend(jobs)

    writing = asyncio.create_task(write())
    await eventually(lambda: len(entered) > 60)
    # Each narrower than the one before would be, so that there is a cut in every step.
    for hours in (2, 6, 14, 30):
        before = count(postgres_url)
        now_us = await other.store_now_us()
        answer = await other._parts._call(
            f"SELECT {PREFIX}cut($1::text::uuid)", (first_id(now_us + hours * DAY // 24),)
        )
        assert (answer, count(postgres_url) - before) == ("done", 1)
    again = await other._parts._call(f"SELECT {PREFIX}cut($1::text::uuid)", (first_id(0),))
    assert (again, count(postgres_url)) == ("done", 7)
    cut.set()
    await writing
    await other.close()
    assert await left(master, entered) == entered
    assert all([len(await master.runs(job.id)) == 1 for job in entered[:: len(entered) // 50]])


async def test_the_part_ahead_is_cut_when_it_is_time(master: SqlMaster, postgres_url: str) -> None:
    await divided(master, postgres_url, 0.1)
    assert not (await master.forget(KEPT)).more
    assert count(postgres_url) == 4
    await master.forget(KEPT)
    assert count(postgres_url) == 4, "there is room for a day"


async def test_a_part_that_keeps_too_much_is_pruned_row_by_row(
    master: SqlMaster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_postgres, "MOST", 3)
    now_us = await divided(master, postgres_url, -14, -13, -12, 1)
    go = [made(now_us - round(days * DAY)) for days in (14.5, 13.5, 12.5) for _ in range(9)]
    stay = [made(now_us - 13 * DAY - DAY // 2, finished_us=now_us) for _ in range(5)]
    await enter(master, [*go, *stay])
    await swept(master)
    assert (await left(master, go), await left(master, stay)) == ([], stay)
    assert count(postgres_url) == 6


async def test_whoever_is_in_the_way_is_let_be(master: SqlMaster, postgres_url: str) -> None:
    now_us = await divided(master, postgres_url, -14, -13, -12, 1)
    jobs = [made(now_us - round(days * DAY)) for days in (13.5, 12.5)]
    await enter(master, jobs)
    with psycopg.connect(postgres_url) as reader:
        reader.execute(f"SELECT count(*) FROM {PREFIX}history".encode())
        async with asyncio.timeout(5):
            forgotten = await master.forget(KEPT)
        assert (forgotten.more, await left(master, jobs)) == (True, jobs)
        assert count(postgres_url) == 6
    await swept(master)
    assert (count(postgres_url), await left(master, jobs)) == (4, [])


async def test_two_coordinators_forget_as_one(master: SqlMaster, postgres_url: str) -> None:
    other = at(postgres_url)
    await other.open()
    now_us = await divided(master, postgres_url, -15, -14, -13, -12, 0)
    go = [made(now_us - round(days * DAY)) for days in (15.5, 14.5, 13.5, 12.5) for _ in range(20)]
    young = [made(now_us - round(days * DAY)) for days in (9, 1)]
    await enter(master, [*go, *young])
    await asyncio.gather(swept(master), swept(other))
    await other.close()
    assert (await left(master, go), await left(master, young)) == ([], young)


async def test_a_sealed_master_keeps_its_parts(master: SqlMaster, postgres_url: str) -> None:
    now_us = await divided(master, postgres_url, -14, -13, -12, 0)
    jobs = [made(now_us - round(days * DAY)) for days in (13.5, 12.5)]
    await enter(master, jobs)
    await put_on(master.engine, master.tables, Seal("postgresql://elsewhere", now_us, "me"))
    assert not (await master.forget(KEPT)).more
    assert (count(postgres_url), await left(master, jobs)) == (6, jobs)


async def test_a_history_of_before_becomes_the_first_part(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = at(postgres_url)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "HEAD", "0004")
        await old.engine.open()
        await old.engine.change_schema(lambda connection: schema.upgrade(connection, PREFIX, "it"))
    now_us = await old.store_now_us()
    # Half a day from what is kept: time goes on meanwhile.
    jobs = [made(now_us - days * DAY - DAY // 2) for days in range(20)]
    jobs += [
        made(now_us + 2 * DAY),
        *(sample(JobState.CANCELLED, id=str(uuid4()), finished_us=now_us) for _ in range(50)),
    ]
    await enter(old, jobs)
    await old.close()
    master = at(postgres_url)
    report = await master.open()
    assert report.facts["schema"] == HEAD
    assert await left(master, jobs) == jobs
    assert {len(await master.runs(job.id)) for job in jobs} == {1}
    with psycopg.connect(postgres_url) as connection:
        names = connection.execute(
            f"SELECT indexname FROM pg_indexes WHERE tablename = '{PREFIX}history' ORDER BY 1".encode()
        ).fetchall()
    assert [name for (name,) in names] == [f"{PREFIX}history_{end}" for end in ("group", "handler", "pkey", "unusual")]
    await swept(master)
    assert await left(master, jobs) == [job for job in jobs if (job.finished_us or 0) > now_us - 10 * DAY]
    await master.close()
