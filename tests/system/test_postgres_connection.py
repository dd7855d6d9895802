"""Connections to Postgres: what ends them, and that they come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from jobmaster.contracts.values import JobFilter
from jobmaster.model.errors import Refused, StoreError
from jobmaster.testing.agents.cases import claim, ids, put_new
from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.connection import Address, Connection, Database
from tests.servers import Postgres
from tests.support import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def agent(postgres_url: str) -> AsyncIterator[PostgresAgent]:
    # One connection, so that what one call leaves behind is what the next one finds.
    agent = PostgresAgent(postgres_url, cluster="connections", name="transport-1", options={"pool": 2})
    await agent.open()
    yield agent
    await agent.close()


async def test_nonsense_is_refused_and_leaves_nothing_open(agent: PostgresAgent) -> None:
    [job] = await put_new(agent)
    for _ in range(3):
        for call in (agent.find(["no id"]), agent.peek(JobFilter(), "no cursor", 3), agent.inventory("no id", 3)):
            with pytest.raises(Refused, match="no "):
                await call
        assert (await agent.find([job.id]))[0] is not None
        assert ids((await agent.peek(JobFilter(), None, 3)).jobs) == [job.id]


async def test_work_goes_on_after_the_server_came_back(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    agent = PostgresAgent(server.url, cluster="connections", name="transport-1")
    await agent.open()
    try:
        jobs = await put_new(agent, 3)
        server.kill()

        async def fails() -> bool:
            # Its other processes answer on until they notice that the first one has gone.
            try:
                await agent.find(ids(jobs))
            except StoreError:
                return True
            return False

        await eventually(fails)
        server.start()

        async def works() -> bool:
            with contextlib.suppress(StoreError):
                return ids(await claim(agent)) == ids(jobs)
            return False

        await eventually(works)
        await eventually(lambda: agent.verbs.listening.hearing)
    finally:
        await agent.close()


async def test_a_restart_fails_no_read_and_no_transaction(
    own_postgres: Callable[..., Postgres], caplog: pytest.LogCaptureFixture
) -> None:
    server = own_postgres()
    agent = PostgresAgent(server.url, cluster="connections", name="transport-1")
    await agent.open()
    try:
        jobs = await put_new(agent, 3)
        for call in (lambda: agent.find([jobs[0].id]), lambda: agent.withdraw(None, 1)):
            # As many connections as there may be, all idle.
            await asyncio.gather(*(agent.stats() for _ in range(20)))
            # The event loop hears nothing of it before the next call.
            server.kill()
            server.start()

            assert await call()

        assert not [record for record in caplog.records if record.name.startswith("asyncpg")]
    finally:
        await agent.close()


async def test_who_is_cancelled_on_a_dead_line_does_not_wait_for_it(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    agent = PostgresAgent(server.url, cluster="connections", name="transport-1")
    await agent.open()
    entered = asyncio.Event()

    async def change(connection: Connection) -> None:
        await connection.fetchval("SELECT 1")
        entered.set()
        await connection.execute("SELECT pg_sleep(30)")

    try:
        writing = asyncio.ensure_future(agent.verbs.store.database.write(change))
        await entered.wait()
        server.freeze()
        writing.cancel()

        done, _ = await asyncio.wait([writing], timeout=8)

        assert done
        assert writing.cancelled()
    finally:
        server.thaw()
        await agent.close()


async def test_an_agent_opened_by_many_at_once_has_one_pool(postgres_url: str) -> None:
    database = Database(Address(postgres_url, "transport-1"), "transport-1", size=2)
    await asyncio.gather(*(database.open() for _ in range(5)))
    pool = database._pool
    try:
        await asyncio.gather(*(database.ask("SELECT 1") for _ in range(5)))

        [[connections]] = await database.ask(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'jobmaster'"
        )

        assert database._pool is pool
        assert connections <= 2
    finally:
        await database.close()
