"""Those who write about the same jobs at the same time on MySQL: somebody waits or asks again, and no one ever learns
of a deadlock."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.contracts.values import PutAnswer, SettleAnswer
from jobmaster.testing.agents.cases import HANDLER, claim_one, make_job, put, put_new, settle, settlement
from jobmaster_agents.mysql import MysqlAgent
from jobmaster_agents.mysql.session import Session
from tests.contract.mysql_store import connect
from tests.sizes import SIZES
from tests.support import eventually
from tests.system.mysql_claimer import CLUSTER

pytestmark = pytest.mark.asyncio

PROCESSES = 4
CLAIMERS = 4
BATCH = 20
JOBS = SIZES.plan_rows // 10 if SIZES.name == "short" else 50_000


@pytest_asyncio.fixture
async def agent(mysql_url: str) -> AsyncIterator[MysqlAgent]:
    agent = MysqlAgent(mysql_url, cluster=CLUSTER, name="transport-1")
    await agent.open()
    yield agent
    await agent.close()


async def somebody_waits(url: str) -> bool:
    def look() -> bool:
        with connect(url) as connection, connection.cursor() as cursor:
            # The table of waiting transactions is told anew only to who has not asked for a while.
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
            [(_, waits)] = cursor.fetchall()
            return int(waits) > 0

    return await asyncio.to_thread(look)


def _start(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.timeout(300)
async def test_claimers_in_several_processes_share_all_jobs_and_see_no_deadlock(
    agent: MysqlAgent, mysql_url: str
) -> None:
    command = [sys.executable, "-m", "tests.system.mysql_claimer", mysql_url, str(CLAIMERS), str(BATCH), HANDLER]
    claimers = [_start(command) for _ in range(PROCESSES)]
    try:
        for each in claimers:
            assert each.stdout is not None
            assert each.stdin is not None
            assert await asyncio.to_thread(each.stdout.readline) == "open\n"
            each.stdin.write("\n")
            each.stdin.flush()
        now_us = await agent.store_now_us()
        jobs = [make_job(now_us) for _ in range(JOBS)]
        # What comes, and what the duties do, comes in between.
        for start in range(0, JOBS, 500):
            batch = jobs[start : start + 500]
            assert await put(agent, *batch) == [PutAnswer.STORED] * len(batch)
            await agent.promote(100)
            await agent.reap(100)
            await agent.park(frozenset({"another"}), 10)
            await agent.park(frozenset(job.handler for job in batch), 1_000)
        told = [await asyncio.to_thread(each.communicate, "", 120) for each in claimers]
    finally:
        for each in claimers:
            each.kill()
            each.wait()
    assert [each.returncode for each in claimers] == [0] * PROCESSES
    reports = [json.loads(out) for out, _ in told]
    got = Counter(job_id for report in reports for job_id in report["got"])
    assert sum(report["stale"] for report in reports) == 0
    assert set(got) == {job.id for job in jobs}
    assert max(got.values()) == 1
    assert all(report["got"] for report in reports)
    assert await agent.stats() == []


async def test_a_put_repeated_while_its_job_is_being_settled_does_not_bring_it_back(
    agent: MysqlAgent, mysql_url: str
) -> None:
    await put_new(agent)
    job = await claim_one(agent)
    again = make_job(await agent.store_now_us(), id=job.id)
    settled, commit = asyncio.Event(), asyncio.Event()

    async def slowly(session: Session) -> list[str]:
        done = await agent.verbs.settling._into_outbox(session, [settlement(job)])
        settled.set()
        await commit.wait()
        return [row[0] for row in done]

    settling = asyncio.ensure_future(agent.verbs.store.database.write(slowly))
    await settled.wait()
    putting = asyncio.ensure_future(put(agent, again))
    await eventually(lambda: somebody_waits(mysql_url))
    commit.set()

    assert await settling == [job.id]
    assert await putting == [PutAnswer.TOMBSTONED]
    assert await agent.inventory("", 10) == []
    assert await agent.stats() == []


async def test_two_settles_of_one_run_do_not_both_happen(agent: MysqlAgent, mysql_url: str) -> None:
    await put_new(agent)
    job = await claim_one(agent)
    settled, commit = asyncio.Event(), asyncio.Event()

    async def slowly(session: Session) -> list[str]:
        done = await agent.verbs.settling._into_outbox(session, [settlement(job)])
        settled.set()
        await commit.wait()
        return [row[0] for row in done]

    first = asyncio.ensure_future(agent.verbs.store.database.write(slowly))
    await settled.wait()
    second = asyncio.ensure_future(settle(agent, job))
    await eventually(lambda: somebody_waits(mysql_url))
    commit.set()

    assert await first == [job.id]
    assert await second is SettleAnswer.ACCEPTED
    assert len(await agent.changes(10)) == 1
