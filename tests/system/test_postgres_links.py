"""What becomes of a Postgres agent's calls when connections, or the server, don't do what they should."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
import pytest_asyncio

from jobmaster.contracts.values import ExtendAnswer, Extension, PutAnswer
from jobmaster.model.errors import AgentUnreachable, ConfigurationError, Indeterminate, Refused
from jobmaster.model.job import Job
from jobmaster.testing.agents.cases import LONG_US, claim, claim_one, claimed_new, make_job, new_job, put, put_new
from jobmaster_agents.postgres import PostgresAgent, connection
from jobmaster_agents.postgres.connection import Connection
from tests.servers import Postgres
from tests.support import eventually

pytestmark = pytest.mark.asyncio


def agent_on(url: str, **options: object) -> PostgresAgent:
    return PostgresAgent(url, cluster="links", name="transport-1", options=options)


@pytest_asyncio.fixture
async def agent(postgres_url: str) -> AsyncIterator[PostgresAgent]:
    agent = agent_on(postgres_url, pool=2)
    await agent.open()
    yield agent
    await agent.close()


async def test_a_used_up_pool_does_not_keep_leases_from_being_extended(agent: PostgresAgent) -> None:
    job = await claimed_new(agent)
    keeper = agent.companion()
    enough = asyncio.Event()
    busy = asyncio.Semaphore(0)

    async def occupy(_: Connection) -> None:
        busy.release()
        await enough.wait()

    database = agent.verbs.store.database
    occupied = [asyncio.create_task(database.read(occupy)) for _ in range(2)]
    await busy.acquire()
    await busy.acquire()

    assert await keeper.extend([Extension(job.id, job.token)], LONG_US) == [ExtendAnswer.HELD]

    enough.set()
    await asyncio.gather(*occupied)


async def test_a_used_up_pool_is_named(agent: PostgresAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.1)
    database = agent.verbs.store.database

    async def ask_inside(_: Connection) -> None:
        async def again(_: Connection) -> None:
            await database.ask("SELECT 1")

        await database.read(again)

    with pytest.raises(Refused, match="'pool'"):
        await database.read(ask_inside)


async def test_ended_connections_are_replaced(agent: PostgresAgent, postgres_url: str) -> None:
    job = await claimed_new(agent)
    other = await asyncpg.connect(postgres_url)
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await other.close()

    async def extended() -> bool:
        try:
            return await agent.extend([Extension(job.id, job.token)], LONG_US) == [ExtendAnswer.HELD]
        except (Refused, Indeterminate):
            return False

    await eventually(extended)
    assert await put(agent, await new_job(agent)) == [PutAnswer.STORED]


async def test_two_who_lock_each_other_out_both_come_through(agent: PostgresAgent) -> None:
    first, second = await put_new(agent, 2)
    store = agent.verbs.store
    met = asyncio.Barrier(2)
    tries: list[str] = []

    async def lock(mine: str, theirs: str) -> None:
        async def change(connection: Connection) -> None:
            tries.append(mine)
            await store.locked(connection, [mine])
            if len(tries) <= 2:
                await met.wait()
            await store.locked(connection, [theirs])

        await store.database.write(change)

    await asyncio.gather(lock(first.id, second.id), lock(second.id, first.id))

    # Who is undone may come back first, and lock the other one out once more.
    assert len(tries) > 2


async def test_what_cannot_be_sent_was_not_applied(agent: PostgresAgent) -> None:
    job = await new_job(agent, data="not bytes")

    with pytest.raises(Refused):
        await put(agent, job)

    assert await claim(agent) == []


async def test_a_server_that_stops_and_comes_back(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    agent = agent_on(server.url)
    await agent.open()
    [job] = await put_new(agent)
    server.stop()
    with pytest.raises(AgentUnreachable, match="transport-1"):
        await eventually(lambda: refused_for_good(agent))
    server.start()

    claimed = await eventually(lambda: claimed_again(agent))
    assert claimed is not None
    assert claimed.id == job.id
    await agent.close()


async def refused_for_good(agent: PostgresAgent) -> bool:
    """Calls until one is refused; the first may have been under way."""
    try:
        await agent.store_now_us()
    except Indeterminate:
        return False
    return True


async def claimed_again(agent: PostgresAgent) -> Job | None:
    try:
        return await claim_one(agent)
    except (Refused, Indeterminate):
        return None


async def test_a_server_that_hangs_leaves_it_open(
    own_postgres: Callable[..., Postgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "COMMAND_SECONDS", 0.5)
    server = own_postgres()
    agent = agent_on(server.url, pool=2)
    await agent.open()
    now_us = await agent.store_now_us()
    job = make_job(now_us)
    server.freeze()

    with pytest.raises(Indeterminate, match="transport-1"):
        await agent.put([job], now_us + LONG_US)
    with pytest.raises(AgentUnreachable):
        await agent.stats()

    server.thaw()

    async def answered() -> PutAnswer | None:
        try:
            return (await agent.put([job], now_us + LONG_US))[0]
        except (Refused, Indeterminate):
            return None

    assert await eventually(answered) in (PutAnswer.STORED, PutAnswer.DUPLICATE)
    assert len(await claim(agent)) == 1
    await agent.close()


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("postgresql://localhost:5432", {}, "names no database"),
        ("postgresql://localhost:wrong/db", {}, "URL"),
        ("postgresql://localhost/db", {"pool": 1}, "pool=1"),
        ("postgresql://localhost/db", {"migrate": "yes"}, "migrate='yes'"),
        ("postgresql://localhost/db", {"colour": 1}, "colour"),
    ],
)
async def test_a_wrong_url_or_option_is_named(url: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        agent_on(url, **options)
