"""Jobs enqueued inside the caller's transaction on Postgres and MariaDB: with the business row, or not at all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

import aiomysql  # type: ignore[import-untyped]
import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from jobmaster import (
    ClusterBuilder,
    Enqueue,
    JobContext,
    JobFailed,
    JobHandle,
    JobHandler,
    JobNotFound,
    LeaseLost,
    OptionInvalid,
    Retry,
    Runtime,
)
from tests.servers import ask, is_postgres
from tests.support import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio]

INSERT = "INSERT INTO business VALUES ('row')"


class Welcome(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return f"welcome {job.data['user']}"


class Caller:
    """A connection with a transaction open on it, whatever its driver."""

    def __init__(
        self,
        connection: Any,
        execute: Callable[[str], Awaitable[Any]],
        commit: Callable[[], Awaitable[None]],
        rollback: Callable[[], Awaitable[None]],
    ) -> None:
        self.connection = connection
        self.execute = execute
        self.commit = commit
        self.rollback = rollback


@asynccontextmanager
async def by_asyncpg(url: str) -> AsyncIterator[Caller]:
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield Caller(connection, connection.execute, transaction.commit, transaction.rollback)
    finally:
        await connection.close()


@asynccontextmanager
async def by_pool(url: str) -> AsyncIterator[Caller]:
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield Caller(connection, connection.execute, transaction.commit, transaction.rollback)


@asynccontextmanager
async def by_psycopg(url: str) -> AsyncIterator[Caller]:
    async with await psycopg.AsyncConnection.connect(url) as connection:

        async def execute(words: str) -> None:
            await connection.execute(words.encode())

        yield Caller(connection, execute, connection.commit, connection.rollback)


@asynccontextmanager
async def by_aiomysql(url: str) -> AsyncIterator[Caller]:
    connection = await open_aiomysql(url)

    async def execute(words: str) -> None:
        async with connection.cursor() as cursor:
            await cursor.execute(words)

    await connection.begin()
    try:
        yield Caller(connection, execute, connection.commit, connection.rollback)
    finally:
        connection.close()


async def open_aiomysql(url: str) -> Any:
    parts = urlsplit(url)
    return await aiomysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=parts.username,
        db=parts.path[1:],
        autocommit=True,
    )


def sqlalchemy_url(url: str, driver: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}+{driver}://{rest}"


@asynccontextmanager
async def _by_connection(url: str, driver: str) -> AsyncIterator[Caller]:
    engine = create_async_engine(sqlalchemy_url(url, driver))
    async with engine.connect() as connection:

        async def execute(words: str) -> None:
            await connection.execute(text(words))

        yield Caller(connection, execute, connection.commit, connection.rollback)
    await engine.dispose()


def by_sqlalchemy(url: str) -> AbstractAsyncContextManager[Caller]:
    return _by_connection(url, "asyncpg" if is_postgres(url) else "aiomysql")


def by_sqlalchemy_on_psycopg(url: str) -> AbstractAsyncContextManager[Caller]:
    return _by_connection(url, "psycopg")


@asynccontextmanager
async def by_session(url: str) -> AsyncIterator[Caller]:
    engine = create_async_engine(sqlalchemy_url(url, "asyncpg" if is_postgres(url) else "aiomysql"))
    async with async_sessionmaker(engine)() as session:

        async def execute(words: str) -> None:
            await session.execute(text(words))

        yield Caller(session, execute, session.commit, session.rollback)
    await engine.dispose()


CALLERS = {
    True: [by_asyncpg, by_pool, by_psycopg, by_sqlalchemy, by_sqlalchemy_on_psycopg, by_session],
    False: [by_aiomysql, by_sqlalchemy, by_session],
}
"""On Postgres, and on MariaDB."""
Open = Callable[[str], AbstractAsyncContextManager[Caller]]


@asynccontextmanager
async def shop(url: str, told: list[str | None] | None = None, poll: float = 1.0) -> AsyncIterator[Runtime]:
    config = ClusterBuilder("shop").set("timings.poll", poll).add_handlers(Welcome).use_master(url)
    config.add_agent("transport-1").use_agent(url)
    config.add_worker().agent("transport-1").slots(2)
    if told is not None:
        config.on_enqueued(lambda event: told.append(event.job_id))
    async with config.build().run() as runtime:
        yield runtime


def count(url: str) -> int:
    """Business rows that were committed."""
    [(found,)] = ask(url, "SELECT count(*) FROM business")
    return int(found)


def first_of(url: str) -> str:
    """The name of a caller by the database's own driver."""
    return CALLERS[is_postgres(url)][0].__name__


def business_table(url: str) -> None:
    ask(url, "CREATE TABLE IF NOT EXISTS business (what text)")


async def commits_with_the_row(url: str, runtime: Runtime, caller_by: Open) -> None:
    async with caller_by(url) as caller:
        jobs = runtime.scheduler.in_transaction(caller.connection)
        await caller.execute(INSERT)
        one = await jobs.once_now(Welcome, {"user": "ada"})
        later = await jobs.once_after(Welcome, timedelta(hours=2), {"user": "bob"})
        several = await jobs.many(Enqueue(Welcome, {"user": f"u{number}"}) for number in range(3))
        with pytest.raises(JobNotFound):
            await one.refresh()
        await caller.commit()
        await jobs.notify_after_commit()
        assert await one.result(30) == "welcome ada"
        assert [await job.result(30) for job in several] == ["welcome u0", "welcome u1", "welcome u2"]
        assert (await later.refresh()).state == "queued"


async def vanishes_with_the_row(url: str, runtime: Runtime, caller_by: Open) -> None:
    async with caller_by(url) as caller:
        jobs = runtime.scheduler.in_transaction(caller.connection)
        await caller.execute(INSERT)
        gone = await jobs.once_now(Welcome, {"user": "ada"})
        await caller.rollback()
        with pytest.raises(JobNotFound):
            await gone.refresh()


async def test_jobs_are_committed_with_the_row_beside_them(sql_url: str) -> None:
    business_table(sql_url)
    told: list[str | None] = []
    async with shop(sql_url, told) as runtime:
        for done, caller_by in enumerate(CALLERS[is_postgres(sql_url)], 1):
            await commits_with_the_row(sql_url, runtime, caller_by)
            assert count(sql_url) == done, caller_by.__name__
        await eventually(lambda: len(told) == 5 * len(CALLERS[is_postgres(sql_url)]))


async def test_a_rollback_takes_jobs_and_row_away(sql_url: str) -> None:
    business_table(sql_url)
    told: list[str | None] = []
    async with shop(sql_url, told) as runtime:
        for caller_by in CALLERS[is_postgres(sql_url)]:
            await vanishes_with_the_row(sql_url, runtime, caller_by)
            assert count(sql_url) == 0, caller_by.__name__
        last = await runtime.scheduler.once_now(Welcome, {"user": "bob"})
        assert await last.result(30) == "welcome bob"
        await eventually(lambda: told == [last.id])


async def test_the_commit_of_a_session_wakes_the_workers(sql_url: str) -> None:
    told: list[str | None] = []
    # Nothing but a hint could make a job run before its result is given up.
    async with shop(sql_url, told, poll=600) as runtime, by_session(sql_url) as caller:
        jobs = runtime.scheduler.in_transaction(caller.connection)
        session: AsyncSession = caller.connection
        for number in range(5):
            async with session.begin_nested():
                job = await jobs.once_now(Welcome, {"user": str(number)})
            assert not told[number:]
            await session.commit()
            await job.result(20)
        await eventually(lambda: len(told) == 5)


async def test_a_connection_without_a_transaction_is_refused(postgres_url: str) -> None:
    async with shop(postgres_url) as runtime:
        connection = await asyncpg.connect(postgres_url)
        with pytest.raises(OptionInvalid, match="transaction"):
            await runtime.scheduler.in_transaction(connection).once_now(Welcome, {"user": "ada"})
        await connection.close()
        engine = create_async_engine(sqlalchemy_url(postgres_url, "asyncpg"), isolation_level="AUTOCOMMIT")
        async with engine.connect() as automatic:
            with pytest.raises(OptionInvalid, match="AUTOCOMMIT"):
                await runtime.scheduler.in_transaction(automatic).once_now(Welcome, {"user": "ada"})
        await engine.dispose()
        with pytest.raises(OptionInvalid, match="asyncpg connection"):
            await runtime.scheduler.in_transaction("nonsense").once_now(Welcome, {"user": "ada"})
        assert not (await runtime.scheduler.list()).jobs


async def test_a_connection_to_another_database_is_refused(
    sql_url: str, sql_kind: str, request: pytest.FixtureRequest
) -> None:
    other: str = request.getfixturevalue(f"{sql_kind}_module_url")
    async with shop(sql_url) as runtime, CALLERS[is_postgres(other)][0](other) as caller:
        with pytest.raises(OptionInvalid, match="where the agent keeps its jobs"):
            await runtime.scheduler.in_transaction(caller.connection).once_now(Welcome, {"user": "ada"})


async def test_a_snapshot_kept_for_the_transaction_is_refused(postgres_url: str) -> None:
    async with shop(postgres_url) as runtime:
        connection = await asyncpg.connect(postgres_url)
        with pytest.raises(OptionInvalid, match="READ COMMITTED"):
            async with connection.transaction(isolation="repeatable_read"):
                await runtime.scheduler.in_transaction(connection).once_now(Welcome, {"user": "ada"})
        await connection.close()


async def test_an_agent_that_cannot_take_part_says_so() -> None:
    config = ClusterBuilder("shop").add_handlers(Welcome).use_memory_for_master()
    config.add_agent("memory").use_memory_for_agent()
    async with config.build().run() as runtime:
        with pytest.raises(OptionInvalid, match="an agent on Postgres, MySQL or MariaDB can"):
            await runtime.scheduler.in_transaction(object()).once_now(Welcome, {"user": "ada"})
        with pytest.raises(OptionInvalid, match="durability"):
            await runtime.scheduler.in_transaction(object()).once_now(Welcome, {"user": "ada"}, durability="master")


class Charge(JobHandler):
    """Does its own work and ends its job in one transaction."""

    url = ""
    outcomes: ClassVar[list[str]] = []

    async def execute(self, job: JobContext) -> str:
        by: Open = globals()[job.data["by"]]
        async with by(self.url) as caller:
            await caller.execute(INSERT)
            await job.complete_in(caller.connection, "charged")
            if job.data["then"] == "roll back" and job.attempt == 1:
                await caller.rollback()
                raise RuntimeError("the card was refused")
            await caller.commit()
        if job.data["then"] == "raise":
            raise RuntimeError("after the commit")
        return "something else"


@asynccontextmanager
async def till(url: str) -> AsyncIterator[Runtime]:
    Charge.url = url
    business_table(url)
    config = ClusterBuilder("till").add_handlers(Charge).use_master(url)
    config.add_agent("transport-1").use_agent(url)
    config.add_worker().agent("transport-1").slots(2)
    async with config.build().run() as runtime:
        yield runtime


async def test_a_handler_commits_its_work_and_its_success_together(sql_url: str) -> None:
    async with till(sql_url) as runtime:
        for done, caller_by in enumerate(CALLERS[is_postgres(sql_url)], 1):
            job = await runtime.scheduler.once_now(Charge, {"by": caller_by.__name__, "then": ""})
            assert await job.result(30) == "charged", caller_by.__name__
            assert (await job.refresh()).state == "succeeded"
            await eventually(partial(_outcomes_are, job, "succeeded"))
            assert count(sql_url) == done


async def test_after_a_rollback_the_job_has_not_ended(sql_url: str) -> None:
    async with till(sql_url) as runtime:
        retry = Retry.fixed(timedelta(milliseconds=50), max_attempts=3)
        job = await runtime.scheduler.once_now(Charge, {"by": first_of(sql_url), "then": "roll back"}, retry=retry)
        assert await job.result(30) == "charged"
        await eventually(lambda: _outcomes_are(job, "retry_at", "succeeded"))
    assert count(sql_url) == 1


async def test_an_error_after_the_commit_changes_nothing(sql_url: str) -> None:
    async with till(sql_url) as runtime:
        job = await runtime.scheduler.once_now(Charge, {"by": first_of(sql_url), "then": "raise"})
        assert await job.result(30) == "charged"
        assert (await job.refresh()).state == "succeeded"
    assert count(sql_url) == 1


class Slow(JobHandler):
    url = ""
    begun: ClassVar[asyncio.Event]
    refused: ClassVar[list[str]] = []

    async def execute(self, job: JobContext) -> None:
        async with CALLERS[is_postgres(self.url)][0](self.url) as caller:
            await caller.execute(INSERT)
            self.begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            try:
                await job.complete_in(caller.connection)
            except LeaseLost:
                self.refused.append(job.id)
                await caller.rollback()
                raise


async def test_a_run_that_was_cancelled_meanwhile_commits_nothing(sql_url: str) -> None:
    Slow.url, Slow.begun = sql_url, asyncio.Event()
    business_table(sql_url)
    config = ClusterBuilder("till").add_handlers(Slow).use_master(sql_url)
    config.add_agent("transport-1").use_agent(sql_url)
    config.add_worker().agent("transport-1")
    async with config.build().run() as runtime:
        job = await runtime.scheduler.once_now(Slow)
        await asyncio.wait_for(Slow.begun.wait(), 30)
        await job.cancel()
        await eventually(lambda: job.id in Slow.refused)
        assert (await job.refresh()).state == "cancelled"
    assert count(sql_url) == 0


async def _outcomes_are(job: JobHandle, *outcomes: str) -> bool:
    """Whether the history has those runs, which follow the result."""
    return tuple(str(run.outcome) for run in (await job.refresh()).runs) == outcomes


async def test_an_agent_that_takes_part_in_no_transaction_says_so() -> None:
    class Alone(JobHandler):
        async def execute(self, job: JobContext) -> None:
            await job.complete_in(object())

    config = ClusterBuilder("till").add_handlers(Alone).use_memory_for_master()
    config.add_agent("memory").use_memory_for_agent()
    config.add_worker().agent("memory")
    async with config.build().run() as runtime:
        job = await runtime.scheduler.once_now(Alone, retry=Retry.never())
        with pytest.raises(JobFailed, match="takes part in no transaction"):
            await job.result(30)
