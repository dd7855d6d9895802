"""Two who write about one job at the same time on Postgres: the second waits, and then sees what the first did."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from jobmaster.contracts.values import (
    PUT_WINDOW_US,
    PutAnswer,
    Release,
    Revocation,
    Revoke,
    RevokeAnswer,
    RevokeKind,
    SettleAnswer,
)
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import claim_one, here, new_job, put, put_new, records, settle, settlement
from jobmaster_agents.postgres import PostgresAgent, revoking
from jobmaster_agents.postgres.sparing import QUICK_SECONDS
from tests.support import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def agent(postgres_url: str) -> AsyncIterator[PostgresAgent]:
    agent = PostgresAgent(postgres_url, cluster="races", name="transport-1")
    await agent.open()
    yield agent
    await agent.close()


@pytest_asyncio.fixture
async def other(postgres_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Somebody's connection, with a transaction that the test ends."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


async def somebody_waits(url: str) -> bool:
    def look() -> bool:
        with psycopg.connect(url) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return found.fetchone() != (0,)

    return await asyncio.to_thread(look)


async def test_a_revoke_of_a_job_that_is_just_being_put_finds_it(
    agent: PostgresAgent, other: "asyncpg.Connection[asyncpg.Record]", postgres_url: str
) -> None:
    job = await new_job(agent)
    transaction = other.transaction()
    await transaction.start()
    deadline_us = await agent.store_now_us() + PUT_WINDOW_US
    assert await agent.put_in(other, [job], deadline_us) == [PutAnswer.STORED]

    second = asyncio.ensure_future(agent.revoke([Revoke(job.id, 1, RevokeKind.CANCEL)]))
    await eventually(lambda: somebody_waits(postgres_url))
    await transaction.commit()

    assert await second == [Revocation(RevokeAnswer.REVOKED)]
    assert await agent.inventory("", 10) == []
    assert (await here(agent, job.id)).state is JobState.CANCELLED


async def test_a_revoke_of_a_job_whose_put_is_taken_back_bars_it(
    agent: PostgresAgent, other: "asyncpg.Connection[asyncpg.Record]", postgres_url: str
) -> None:
    job = await new_job(agent)
    transaction = other.transaction()
    await transaction.start()
    await agent.put_in(other, [job], await agent.store_now_us() + PUT_WINDOW_US)

    second = asyncio.ensure_future(agent.revoke([Revoke(job.id, 1, RevokeKind.CANCEL)]))
    await eventually(lambda: somebody_waits(postgres_url))
    await transaction.rollback()

    assert await second == [Revocation(RevokeAnswer.ABSENT)]
    assert await put(agent, job) == [PutAnswer.TOMBSTONED]


async def test_a_put_of_a_job_that_is_just_being_revoked_does_not_bring_it(
    agent: PostgresAgent, other: "asyncpg.Connection[asyncpg.Record]", postgres_url: str
) -> None:
    job = await new_job(agent)
    transaction = other.transaction()
    await transaction.start()
    answers, _ = await revoking.revoke(agent.verbs.store, other, [Revoke(job.id, 1, RevokeKind.MOVE)])
    assert answers == [Revocation(RevokeAnswer.ABSENT)]

    putting = asyncio.ensure_future(put(agent, job))
    await eventually(lambda: somebody_waits(postgres_url))
    await transaction.commit()

    assert await putting == [PutAnswer.TOMBSTONED]
    assert await agent.inventory("", 10) == []
    assert [record.revoked for record in await records(agent)] == [Revoke(job.id, 1, RevokeKind.MOVE)]
    assert await agent.stats() == []


async def test_two_revokes_at_once_get_one_answer(
    agent: PostgresAgent, other: "asyncpg.Connection[asyncpg.Record]", postgres_url: str
) -> None:
    job = await new_job(agent)
    item = Revoke(job.id, 1, RevokeKind.CANCEL)
    transaction = other.transaction()
    await transaction.start()
    first, _ = await revoking.revoke(agent.verbs.store, other, [item])

    second = asyncio.ensure_future(agent.revoke([item]))
    await eventually(lambda: somebody_waits(postgres_url))
    await transaction.commit()

    assert await second == first
    assert len(await records(agent)) == 1


async def test_a_settle_and_a_cancel_of_one_job_do_not_both_happen(
    agent: PostgresAgent, other: "asyncpg.Connection[asyncpg.Record]", postgres_url: str
) -> None:
    await put_new(agent)
    job = await claim_one(agent)
    transaction = other.transaction()
    await transaction.start()
    [answer], _ = await revoking.revoke(agent.verbs.store, other, [Revoke(job.id, 1, RevokeKind.CANCEL)])
    assert answer.was_running

    settling = asyncio.ensure_future(settle(agent, job))
    await eventually(lambda: somebody_waits(postgres_url))
    await transaction.commit()

    assert await settling is SettleAnswer.STALE
    [record] = await records(agent)
    assert record.job is not None
    assert record.job.state is JobState.CANCELLED


async def test_promoters_at_once_make_each_job_ready_once(agent: PostgresAgent) -> None:
    due_us = await agent.store_now_us() + 200_000
    jobs = await put_new(agent, 300, due_us=due_us)
    await eventually(lambda: _later(agent, due_us))

    reports = await asyncio.gather(*(agent.promote(100) for _ in range(6)))

    promoted = sum(report.ready for report in reports)
    while (report := await agent.promote(100)).ready:
        promoted += report.ready
    assert promoted == len(jobs)
    [stats] = await agent.stats()
    assert (stats.ready, stats.delayed) == (300, 0)


async def _later(agent: PostgresAgent, us: int) -> bool:
    return await agent.store_now_us() > us


async def test_a_claim_that_waited_for_a_connection_hides_no_job_that_comes_back(postgres_url: str) -> None:
    agent = PostgresAgent(postgres_url, cluster="races", name="transport-1", options={"pool": 2})
    await agent.open()
    try:
        jobs = await put_new(agent, 3)
        database = agent.verbs.store.database
        async with (
            database._session(writes=False, since=0.0),
            database._session(writes=False, since=0.0),
        ):
            first = asyncio.ensure_future(claim_one(agent))
            began = time.monotonic()
            await eventually(lambda: time.monotonic() > began + 2 * QUICK_SECONDS)
        leased = await first
        await claim_one(agent)
        await agent.release([Release(leased.id, leased.token)])

        assert (await claim_one(agent)).id == jobs[0].id == leased.id
    finally:
        await agent.close()


async def test_a_settle_in_somebodys_transaction_waits_for_an_extend_and_is_no_staler_for_it(
    agent: PostgresAgent, other: "asyncpg.Connection[asyncpg.Record]", postgres_url: str
) -> None:
    [job] = await put_new(agent)
    leased = await claim_one(agent)
    beat = await asyncpg.connect(postgres_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        extending = beat.transaction()
        await extending.start()
        # As a lease keeper's extend writes it.
        await beat.execute(f"UPDATE {agent._tables.job} SET leased_until_us = leased_until_us + 1")
        settling = asyncio.ensure_future(agent.settle_in(other, settlement(leased)))
        await eventually(lambda: somebody_waits(postgres_url))
        await extending.commit()

        assert await settling is SettleAnswer.ACCEPTED
        await transaction.commit()
    finally:
        await beat.close()
    assert (await here(agent, job.id)).state is JobState.SUCCEEDED
