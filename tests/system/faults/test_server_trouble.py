"""What a SQL server can do to a cluster under load: nothing acknowledged is lost, nothing is committed twice."""

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import ClassVar

import asyncpg
import pymysql
import pytest

from jobmaster import ClusterBuilder, Enqueue, Indeterminate, JobContext, JobHandler, Refused, Runtime
from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import PUT_WINDOW_US, PutAnswer, SettleAnswer, Settlement
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster_agents.postgres import PostgresAgent
from tests.servers import Mariadb, Postgres, ask, connected, is_postgres
from tests.sizes import SIZES
from tests.support import eventually
from tests.system.fleet.accounts import Accounts, balanced, history
from tests.system.fleet.processes import Fleet, fleet

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(240 + 4 * SIZES.storm_seconds)]

TTL = 3.0
LEASES = {
    "TIMINGS__LEASE_TTL": str(TTL),
    "TIMINGS__LEASE_BEAT": str(TTL / 3),
    "TIMINGS__LEASE_MARGIN": str(TTL / 6),
}


@pytest.fixture
def server(own_server: Callable[..., Postgres | Mariadb], sql_kind: str) -> Postgres | Mariadb:
    # So that a statement can be known by its end.
    return own_server(settings={"track_activity_query_size": "16384"} if sql_kind == "postgres" else {})


@pytest.fixture
def shop(tmp_path: Path, server: Postgres | Mariadb) -> Iterator[Fleet]:
    """Master and agent in one database, on a server of its own."""
    with fleet(tmp_path, server.url, {"transport-1": server.url}, LEASES) as made:
        yield made


def tell(what: str, figures: dict[str, int], recovered: list[float] | None = None) -> None:
    words = ", ".join(f"{name} {count:,}" for name, count in figures.items())
    again = f"; running again after {', '.join(f'{seconds:.1f} s' for seconds in recovered)}" if recovered else ""
    print(f"{what}: {words}{again}")


async def test_the_server_is_killed_and_started_again(shop: Fleet, server: Postgres | Mariadb) -> None:
    accounts = Accounts(shop)
    recovered = []
    async with shop.cluster().run() as runtime:
        await asyncio.gather(*(shop.worker("--agent", "transport-1", "--slots", "20") for _ in range(2)))
        async with accounts.enqueuing(runtime):
            for _ in range(2):
                enough = accounts.begun + 300
                await eventually(lambda least=enough: accounts.begun > least, within=60)  # type: ignore[misc]  # a bound default
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                recovered.append(await accounts.begun_after(time.monotonic()))
        figures = await balanced(accounts, server.url)
    tell("kill -9 of the server, twice", figures, recovered)
    assert max(recovered) < 2 * TTL + 10


def end_connections(url: str) -> int:
    """All but its own; how many."""
    if is_postgres(url):
        [(ended,)] = ask(
            url,
            "SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend') AS gone",
        )
        return int(ended)
    others = "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = 'root'"
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(others)
        found = cursor.fetchall()
        for (number,) in found:
            with contextlib.suppress(pymysql.err.OperationalError):  # it is gone already
                cursor.execute(f"KILL {number}")
        return len(found)


async def test_every_connection_is_ended_again_and_again(shop: Fleet, server: Postgres | Mariadb) -> None:
    accounts = Accounts(shop)
    ended = 0
    async with shop.cluster().run() as runtime:
        await shop.worker("--agent", "transport-1", "--slots", "20")
        async with accounts.enqueuing(runtime):
            await eventually(lambda: accounts.begun > 100, within=60)
            began = time.monotonic()

            async def end_all() -> bool:
                nonlocal ended
                ended += await asyncio.to_thread(end_connections, server.url)
                return time.monotonic() - began > SIZES.storm_seconds

            await eventually(end_all, within=2 * SIZES.storm_seconds + 20)
            recovered = await accounts.begun_after(time.monotonic())
        figures = await balanced(accounts, server.url)
    tell(f"{ended:,} connections ended in {SIZES.storm_seconds:g} s", figures, [recovered])
    assert ended > SIZES.storm_seconds
    assert recovered < 2 * TTL + 10


@pytest.mark.parametrize("sql_kind", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("verb", "table", "words"), [("claim", "count", "%SKIP LOCKED%"), ("settle", "tombstone", "%tombstone%")]
)
async def test_a_connection_answers_no_more(
    shop: Fleet, server: Postgres | Mariadb, verb: str, table: str, words: str
) -> None:
    """Its server process is stopped in the middle of a statement and stays so: what it holds locked is out of reach,
    and everything else goes on."""
    accounts = Accounts(shop)
    async with shop.cluster().run() as runtime:
        await shop.worker("--agent", "transport-1", "--slots", "20")
        watcher, locker = await asyncpg.connect(server.url), await asyncpg.connect(server.url)
        try:
            async with accounts.enqueuing(runtime):
                await eventually(lambda: accounts.begun > 100, within=60)

                async def caught() -> int | None:
                    pid: int | None = await watcher.fetchval(
                        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE $1 LIMIT 1",
                        words,
                    )
                    if pid is not None:
                        os.kill(pid, signal.SIGSTOP)
                    return pid

                # A table that it writes to: it is held up there, and stopped.
                await locker.execute("BEGIN")
                await locker.execute(f"LOCK TABLE {table_prefix('fleet', 'transport-1')}{table} IN SHARE MODE")
                stopped = await eventually(caught, within=60, what=f"a {verb} in the act")
                await locker.execute("ROLLBACK")
                assert stopped is not None
                try:
                    recovered = await accounts.begun_after(time.monotonic())
                finally:
                    os.kill(stopped, signal.SIGCONT)
            figures = await balanced(accounts, server.url)
        finally:
            await locker.close()
            await watcher.close()
    tell(f"a connection stopped in a {verb}", figures, [recovered])


class Nothing(JobHandler):
    async def execute(self, job: JobContext) -> None:
        return None


class Busy(JobHandler):
    begun = 0
    go: ClassVar[asyncio.Event]
    runtime: ClassVar[Runtime]

    async def execute(self, job: JobContext) -> None:
        Busy.begun += 1
        await self.go.wait()
        # One id for all tries: what was stored without an answer is not stored twice.
        other = uuid.uuid5(uuid.UUID(job.id), "nothing")
        while True:
            try:
                await self.runtime.scheduler.once_now(Nothing, id=other)
            except (Refused, Indeterminate):
                continue
            return


@contextlib.asynccontextmanager
async def locked(url: str, table: str) -> AsyncIterator[None]:
    """Nobody comes near that table during the block."""
    with connected(url) as connection, connection.cursor() as cursor:
        lock = "BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE" if is_postgres(url) else "LOCK TABLES {} WRITE"
        # It waits for whoever is there now, which may be a transaction of this very loop.
        await asyncio.to_thread(cursor.execute, lock.format(table))
        yield
        cursor.execute("ROLLBACK" if is_postgres(url) else "UNLOCK TABLES")


async def test_an_exhausted_pool_costs_no_lease(sql_url: str) -> None:
    """Two hundred handlers enqueue at once while the table that every put writes to is locked, so that each connection
    of the pool waits, for longer than a lease lasts."""
    config = ClusterBuilder("fleet").ignore_environment().add_handlers(Busy, Nothing).use_master(sql_url)
    config.add_agent("transport-1").use_agent(sql_url, pool=4)
    config.add_worker().agent("transport-1").slots(200)
    for name, value in (("lease_ttl", TTL), ("lease_beat", TTL / 3), ("lease_margin", TTL / 6)):
        config.set(f"timings.{name}", value)
    async with config.build().run() as runtime:
        Busy.runtime, Busy.begun, Busy.go = runtime, 0, asyncio.Event()
        handles = await runtime.scheduler.many(Enqueue(Busy) for _ in range(200))
        await eventually(lambda: Busy.begun == 200, within=30)
        async with locked(sql_url, f"{table_prefix('fleet', 'transport-1')}count"):
            Busy.go.set()
            began = time.monotonic()
            await eventually(lambda: time.monotonic() - began > 2 * TTL, within=30)
        for handle in handles:
            await handle.result(timeout=60)

        async def missing() -> int:
            states, _ = await history(sql_url)
            return 400 - len(states)

        async def all_there() -> bool:
            return not await missing()

        try:
            await eventually(all_there, within=30)
        except AssertionError:
            lanes = await runtime.agents["transport-1"].stats()
            records = await runtime.agents["transport-1"].changes(1_000)
            pytest.fail(f"{await missing()} of 400 jobs missing in the history; {lanes}; {len(records)} records wait")
        states, outcomes = await history(sql_url)
        assert set(states.values()) == {"succeeded"}
        assert {tuple(ended) for ended in outcomes.values()} == {("succeeded",)}


async def test_a_put_that_is_repeated_while_its_job_is_being_settled_brings_nothing_back(postgres_url: str) -> None:
    """The repetition comes while the settle has not been committed yet: it has to wait, and then finds a tombstone."""
    agent = PostgresAgent(postgres_url, cluster="fleet", name="transport-1")
    await agent.open()
    other = await asyncpg.connect(postgres_url)
    try:
        for _ in range(20):
            now_us = await agent.store_now_us()
            job = Job(
                id=new_id(), handler="pack", lane="default", created_us=now_us, original_due_us=now_us, due_us=now_us
            )
            assert await agent.put([job], now_us + PUT_WINDOW_US) == [PutAnswer.STORED]
            (claimed,) = await agent.claim("w", {"default": 1}, frozenset({"pack"}), 1, 10_000_000)
            done = Settlement(
                id=job.id,
                token=claimed.token,
                outcome=RunOutcome.SUCCEEDED,
                attempt=1,
                worker="w",
                host="h",
                started_us=now_us,
                finished_us=now_us,
            )
            async with other.transaction():
                assert await agent.settle_in(other, done) is SettleAnswer.ACCEPTED
                again = asyncio.ensure_future(agent.put([job], now_us + PUT_WINDOW_US))
                await eventually(lambda: _waits(postgres_url))
            assert await again == [PutAnswer.TOMBSTONED]
            assert await agent.inventory("", 10) == []
    finally:
        await other.close()
        await agent.close()


async def _waits(url: str) -> bool:
    """Whether somebody waits for a lock."""
    connection = await asyncpg.connect(url)
    try:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
        )
    finally:
        await connection.close()
