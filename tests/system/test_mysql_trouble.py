"""Links to MariaDB that hang, locks that are not to be had, and deadlocks: what the agent makes of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from jobmaster.contracts.values import PutAnswer, SettleAnswer
from jobmaster.model.errors import AgentUnreachable, Indeterminate
from jobmaster.testing.agents.cases import LANE, claim, make_job, put, settlement
from jobmaster_agents.mysql import MysqlAgent, connection, dialect, session
from tests.servers import Mariadb, ask, connected, create_database
from tests.support import eventually
from tests.system.stalling_proxy import StallingProxy

pytestmark = pytest.mark.asyncio

Open = Callable[[str], Any]


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Open]:
    agents: list[MysqlAgent] = []

    async def start(url: str) -> MysqlAgent:
        agent = MysqlAgent(url, cluster="trouble", name="transport-1")
        agents.append(agent)
        await agent.open()
        return agent

    yield start
    for agent in agents:
        await agent.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time limits of seconds, to be waited for."""
    monkeypatch.setattr(connection, "COMMAND_SECONDS", 2.0)
    monkeypatch.setattr(session, "ANSWER_SECONDS", 2.0)


def waiting(url: str, words: str) -> list[tuple[Any, ...]]:
    """Sessions of the database in the middle of such a statement."""
    database = url.rpartition("/")[2]
    return ask(
        url,
        "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() "
        f"AND db = '{database}' AND info LIKE '{words}'",
    )


async def test_a_link_that_hangs_in_a_claim_keeps_no_jobs(opened: Open, mysql_url: str, impatient: None) -> None:
    """The server holds the jobs it found for a client that does not go on; then it ends that client's session."""
    proxy = StallingProxy(mysql_url)
    try:
        hung, other = await opened(await proxy.start()), await opened(mysql_url)
        now_us = await other.store_now_us()
        await put(other, *(make_job(now_us) for _ in range(20)))
        with connected(mysql_url) as operator, operator.cursor() as cursor:
            cursor.execute(f"LOCK TABLES {other._tables.job} READ")
            claiming = asyncio.ensure_future(claim(hung, 20))
            await eventually(lambda: waiting(mysql_url, "%FOR UPDATE SKIP LOCKED%"))
            proxy.stall()
            cursor.execute("UNLOCK TABLES")
        began = time.monotonic()
        with pytest.raises(AgentUnreachable):
            await claiming
        found: list[Any] = []

        async def all_claimed() -> bool:
            found.extend(await claim(other, 20, worker="w2"))
            return len(found) == 20

        await eventually(all_claimed, within=20)
        print(f"claimed by another one {time.monotonic() - began:.1f} s after the answer did not come")
        proxy.go_on()
        assert await other.settle([settlement(job) for job in found]) == [SettleAnswer.ACCEPTED] * 20
        # What arrives late of the one that hung changes nothing.
        assert await claim(hung, 20) == []
    finally:
        await proxy.close()


async def test_a_settle_that_got_no_answer_can_be_repeated(opened: Open, mysql_url: str, impatient: None) -> None:
    proxy = StallingProxy(mysql_url)
    try:
        hung, other = await opened(await proxy.start()), await opened(mysql_url)
        await put(other, make_job(await other.store_now_us()))
        [claimed] = await claim(hung, 1)
        with connected(mysql_url) as operator, operator.cursor() as cursor:
            operator.begin()
            cursor.execute(f"SELECT 1 FROM {other._tables.job} FOR UPDATE")
            settling = asyncio.ensure_future(hung.settle([settlement(claimed)]))
            await eventually(lambda: waiting(mysql_url, f"%{other._tables.job}%"))
            proxy.stall()
            operator.rollback()
        with pytest.raises((AgentUnreachable, Indeterminate)):
            await settling
        proxy.go_on()

        assert await other.settle([settlement(claimed)]) == [SettleAnswer.ACCEPTED]
        assert [record.run.token for record in await other.changes(10) if record.run] == [claimed.token]
    finally:
        await proxy.close()


async def test_a_lock_that_comes_late_is_waited_for_in_several_tries(
    opened: Open, mysql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server undoes nothing but the statement that waited in vain: the agent undoes the rest, and begins anew."""
    monkeypatch.setattr(
        connection, "SESSION", connection.SESSION.replace("lock_wait_timeout = 3", "lock_wait_timeout = 1")
    )
    agent = await opened(mysql_url)
    now_us = await agent.store_now_us()
    jobs = sorted((make_job(now_us) for _ in range(4)), key=lambda job: job.id)
    await put(agent, *jobs)
    claimed = await claim(agent, 4)
    timeouts = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'"
    with connected(mysql_url) as operator, operator.cursor() as cursor:
        operator.begin()
        cursor.execute(f"SELECT 1 FROM {agent._tables.job} WHERE id = '{jobs[-1].id}' FOR UPDATE")
        before = int(ask(mysql_url, timeouts)[0][1])
        settling = asyncio.ensure_future(agent.settle([settlement(job) for job in claimed]))
        # Two tries have begun to wait: the first was given up.
        await eventually(lambda: int(ask(mysql_url, timeouts)[0][1]) >= before + 2, within=20)
        operator.rollback()
    assert await settling == [SettleAnswer.ACCEPTED] * 4
    assert await agent.inventory("", 10) == []
    assert len(await agent.changes(10)) == 4


async def test_a_deadlock_is_not_told_to_anybody(opened: Open, mysql_url: str) -> None:
    """Somebody locks two jobs in the other order, and has written more: the agent's transaction is the one undone."""
    agent = await opened(mysql_url)
    now_us = await agent.store_now_us()
    jobs = sorted((make_job(now_us) for _ in range(2)), key=lambda job: job.id)
    await put(agent, *jobs)
    claimed = await claim(agent, 2)
    ask(mysql_url, "CREATE TABLE ballast (n INT PRIMARY KEY) ENGINE = InnoDB")
    deadlocks = "SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'"
    ask(mysql_url, "SET GLOBAL innodb_monitor_enable = 'lock_deadlocks'")
    before = int(ask(mysql_url, deadlocks)[0][0])
    with connected(mysql_url) as operator, operator.cursor() as cursor:
        operator.begin()
        cursor.execute("INSERT INTO ballast SELECT seq FROM seq_1_to_5000")
        one = f"SELECT 1 FROM {agent._tables.job} WHERE id = '%s' FOR UPDATE"
        cursor.execute(one % jobs[1].id)
        settling = asyncio.ensure_future(agent.settle([settlement(job) for job in claimed]))
        await eventually(lambda: waiting(mysql_url, f"%{agent._tables.job}%"))
        await asyncio.to_thread(cursor.execute, one % jobs[0].id)
        operator.rollback()
    assert await settling == [SettleAnswer.ACCEPTED] * 2
    assert int(ask(mysql_url, deadlocks)[0][0]) > before


async def test_another_process_is_heard_of_by_looking(opened: Open, mysql_url: str) -> None:
    """Long before a poll would find it; and of a job that ended there, too."""
    waits, writes = await opened(mysql_url), await opened(mysql_url)
    lanes = frozenset({LANE})
    ended = []
    for _ in range(3):
        hearing = asyncio.ensure_future(waits.wait(lanes, 30.0))
        await eventually(lambda: waits.verbs.polling._last is not None)
        job = make_job(await writes.store_now_us())
        assert await put(writes, job) == [PutAnswer.STORED]
        async with asyncio.timeout(10):
            await hearing
        watching = asyncio.ensure_future(waits.watch(frozenset({job.id}), 30.0))
        [claimed] = await claim(writes, 1)
        await writes.settle([settlement(claimed)])
        async with asyncio.timeout(10):
            await watching
        ended.append(job.id)
    assert len(ended) == 3


async def test_what_a_session_may_take_is_told_to_the_server(opened: Open, mysql_url: str) -> None:
    agent = await opened(mysql_url)
    [found] = await agent.verbs.store.database.ask(
        "SELECT @@max_statement_time, @@idle_transaction_timeout, @@innodb_lock_wait_timeout, @@tx_isolation"
    )
    assert (float(found[0]), *found[1:]) == (10.0, 10, 3, "READ-COMMITTED")
    assert "max_execution_time = 10000, wait_timeout = 60" in dialect.Dialect("mysql", (8, 0, 36)).settings(10.0)


async def test_a_server_that_dies_with_a_transaction_does_not_look_set_back(
    own_mariadb: Callable[..., Mariadb], opened: Open
) -> None:
    """Such a server mostly forgets how far its numbers had come for what was not committed."""
    server = own_mariadb()
    agent = await opened(create_database(server.url))
    await put(agent, make_job(await agent.store_now_us()))
    mark = (await agent.probe()).high_water
    other = connected(agent._url)
    other.begin()
    with other.cursor() as cursor:
        cursor.execute(f"INSERT INTO {agent._tables.ticket} () VALUES ()")
    assert (await agent.probe()).high_water == mark
    server.kill()
    server.start()
    assert (await agent.probe()).high_water == mark
    await agent.promote(10)
    assert (await agent.probe()).high_water == mark
