"""Beats of leases on Postgres write no index, also beside somebody who has an old snapshot."""

from collections.abc import Callable

import asyncpg
import pytest

from jobmaster.contracts.values import ExtendAnswer, Extension, PutAnswer
from jobmaster.testing.agents.cases import HANDLERS, LONG_US, make_job, put
from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.tables import Tables
from tests.servers.postgres import Postgres
from tests.support import eventually

JOBS = 1_000
BEATS = 10


async def hot_updates(url: str) -> int | None:
    """How many updates of jobs were HOT, once the sessions that made them have told all."""
    connection = await asyncpg.connect(url)
    found = await connection.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1",
        Tables("beats", "transport-1").job,
    )
    await connection.close()
    assert found is not None
    made, hot = found
    # One of each job's updates is its claim.
    return int(hot) if made == (BEATS + 1) * JOBS else None


@pytest.mark.asyncio
async def test_extending_leases_is_hot(own_postgres: Callable[..., Postgres]) -> None:
    """More than 95 in 100 updates stay on their page, where all jobs of a page are leased, and if somebody has a
    snapshot during one of the beats, as a backup, a report or an ANALYZE has."""
    # Whose snapshots come when they like.
    url = own_postgres(settings={"autovacuum": "off"}).url
    agent = PostgresAgent(url, cluster="beats", name="transport-1")
    await agent.open()
    now_us = await agent.store_now_us()
    assert set(await put(agent, *[make_job(now_us) for _ in range(JOBS)])) == {PutAnswer.STORED}
    claimed = await agent.claim("w", {"default": JOBS}, HANDLERS, JOBS, LONG_US)
    assert len(claimed) == JOBS

    reader = await asyncpg.connect(url)
    snapshot = reader.transaction(isolation="repeatable_read")
    for beat in range(BEATS):
        if beat == 3:
            await snapshot.start()
            await reader.fetchval("SELECT count(*) FROM pg_class")
        if beat == 4:
            await snapshot.rollback()
        answers = await agent.extend([Extension(job.id, job.token) for job in claimed], LONG_US + beat)
        assert set(answers) == {ExtendAnswer.HELD}
    await reader.close()
    await agent.close()

    hot = await eventually(lambda: hot_updates(url))
    assert hot is not None
    assert hot > 0.95 * BEATS * JOBS
