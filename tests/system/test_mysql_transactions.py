"""What a transaction of the caller's on MariaDB may be like: REPEATABLE READ, as the server begins one, with ids known
before; and what is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiomysql  # type: ignore[import-untyped]
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import create_async_engine

from jobmaster.contracts.values import Control, ControlKind, PutAnswer, Revoke, RevokeKind, SettleAnswer
from jobmaster.model.errors import OptionInvalid, Refused
from jobmaster.model.job import Job
from jobmaster.testing.agents.cases import LONG_US, claim, make_job, put, settlement
from jobmaster_agents.mysql import MysqlAgent
from tests.servers import ask
from tests.support import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def agent(mysql_url: str) -> AsyncIterator[MysqlAgent]:
    agent = MysqlAgent(mysql_url, cluster="shop", name="transport-1")
    await agent.open()
    yield agent
    await agent.close()


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Any]:
    """A connection as an application has it: REPEATABLE READ unless it says otherwise."""
    parts = urlsplit(url)
    connection = await aiomysql.connect(
        host=parts.hostname or "127.0.0.1", port=parts.port or 3306, user=parts.username, db=parts.path[1:], **options
    )
    try:
        yield connection
    finally:
        connection.close()


async def query(connection: Any, sql: str) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(sql)
        return await cursor.fetchall()


async def new_job(agent: MysqlAgent) -> Job:
    return make_job(await agent.store_now_us())


async def put_in(agent: MysqlAgent, connection: Any, *jobs: Job) -> list[PutAnswer]:
    return await agent.put_in(connection, jobs, await agent.store_now_us() + LONG_US)


async def test_what_ended_after_the_snapshot_was_taken_stays_ended(agent: MysqlAgent, mysql_url: str) -> None:
    job = await new_job(agent)
    async with connected(mysql_url) as connection:
        await connection.begin()
        assert await query(connection, "SELECT COUNT(*) FROM information_schema.tables") != ()
        # The snapshot is taken by the first look at a table, and knows nothing of this job.
        await query(connection, f"SELECT COUNT(*) FROM {agent._tables.job}")
        await put(agent, job)
        [claimed] = await claim(agent, 1)
        await agent.settle([settlement(claimed)])
        new = await new_job(agent)
        assert await put_in(agent, connection, job, new) == [PutAnswer.TOMBSTONED, PutAnswer.STORED]
        await connection.commit()
    assert [item.id for item in await agent.inventory("", 10)] == [new.id]
    [lane] = await agent.stats()
    assert (lane.ready, lane.leased) == (1, 0)


async def test_a_job_that_is_being_settled_is_waited_for(agent: MysqlAgent, mysql_url: str) -> None:
    """Its row is there until the other transaction is committed, and then its tombstone."""
    job = await new_job(agent)
    await put(agent, job)
    [claimed] = await claim(agent, 1)
    waits = f"SELECT 1 FROM information_schema.processlist WHERE info LIKE 'INSERT INTO {agent._tables.job} %'"
    async with connected(mysql_url) as settling, connected(mysql_url) as enqueuing:
        await settling.begin()
        assert await agent.settle_in(settling, settlement(claimed)) is SettleAnswer.ACCEPTED
        await enqueuing.begin()
        again = asyncio.ensure_future(put_in(agent, enqueuing, job))
        await eventually(lambda: ask(mysql_url, waits))
        await settling.commit()
        assert await again == [PutAnswer.TOMBSTONED]
        await enqueuing.commit()
    assert await agent.inventory("", 10) == []


async def test_a_rolled_back_settlement_leaves_the_lease(agent: MysqlAgent, mysql_url: str) -> None:
    await put(agent, await new_job(agent))
    [claimed] = await claim(agent, 1)
    async with connected(mysql_url) as connection:
        await connection.begin()
        assert await agent.settle_in(connection, settlement(claimed)) is SettleAnswer.ACCEPTED
        assert await agent.settle_in(connection, settlement(claimed)) is SettleAnswer.STALE
        await connection.rollback()
    assert await agent.settle([settlement(claimed)]) == [SettleAnswer.ACCEPTED]


async def test_jobs_that_are_known_get_their_own_answers(agent: MysqlAgent, mysql_url: str) -> None:
    known, other, barred = [await new_job(agent) for _ in range(3)]
    await put(agent, known)
    await agent.revoke([Revoke(barred.id, barred.epoch, RevokeKind.CANCEL)])
    changed = make_job(known.due_us, id=known.id, data=b'{"other":1}')
    async with connected(mysql_url) as connection:
        await connection.begin()
        assert await put_in(agent, connection, known, other, changed, other, barred) == [
            PutAnswer.DUPLICATE,
            PutAnswer.STORED,
            PutAnswer.CONFLICT,
            PutAnswer.DUPLICATE,
            PutAnswer.TOMBSTONED,
        ]
        assert await put_in(agent, connection, other) == [PutAnswer.DUPLICATE]
        assert await agent.put_in(connection, [await new_job(agent)], 1) == [PutAnswer.STALE_PUT]
        await connection.commit()
    assert {item.id for item in await agent.inventory("", 10)} == {known.id, other.id}
    [lane] = await agent.stats()
    assert lane.ready == 2


async def test_the_callers_own_last_insert_is_left_alone(agent: MysqlAgent, mysql_url: str) -> None:
    ask(mysql_url, "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY)")
    ask(mysql_url, "ALTER TABLE orders AUTO_INCREMENT = 77")
    async with connected(mysql_url) as connection:
        await connection.begin()
        await query(connection, "INSERT INTO orders VALUES ()")
        assert await put_in(agent, connection, await new_job(agent)) == [PutAnswer.STORED]
        assert await query(connection, "SELECT LAST_INSERT_ID()") == ((77,),)
        await connection.rollback()


async def test_a_store_that_is_draining_takes_nothing_new(agent: MysqlAgent, mysql_url: str) -> None:
    job = await new_job(agent)
    await put(agent, job)
    await agent.control(Control(ControlKind.DRAIN))
    async with connected(mysql_url) as connection:
        await connection.begin()
        assert await put_in(agent, connection, job) == [PutAnswer.DUPLICATE]
        with pytest.raises(Refused, match="draining"):
            await put_in(agent, connection, await new_job(agent))


async def test_what_could_not_be_taken_back_or_would_be_stored_changed_is_refused(
    agent: MysqlAgent, mysql_url: str
) -> None:
    job = await new_job(agent)
    for options, words in (
        ({"autocommit": True}, "transaction open on it"),
        ({"charset": "latin1"}, "charset='utf8mb4'"),
        ({"init_command": "SET sql_mode = 'NO_BACKSLASH_ESCAPES'"}, "NO_BACKSLASH_ESCAPES"),
    ):
        async with connected(mysql_url, **options) as connection:
            with pytest.raises(OptionInvalid, match=words):
                await put_in(agent, connection, job)
    engine = create_async_engine(mysql_url.replace("mysql://", "mysql+aiomysql://"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as automatic:
        with pytest.raises(OptionInvalid, match="AUTOCOMMIT"):
            await put_in(agent, automatic, job)
    await engine.dispose()
    with pytest.raises(OptionInvalid, match="aiomysql connection"):
        await put_in(agent, "nonsense", job)
    assert await agent.inventory("", 10) == []
