"""Hints between processes on Postgres: they come back after the connection was lost, and never in a storm."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from jobmaster.contracts.values import PUT_WINDOW_US
from jobmaster.model.errors import StoreError
from jobmaster.testing.agents.cases import LANE, claim_one, make_job, put_new, settle
from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.notifying import COOLDOWN_SECONDS
from tests.support import eventually

pytestmark = pytest.mark.asyncio

FAR = 90.0
"""Seconds that a hint must save."""
PATIENCE = 30.0
LANES = frozenset({LANE})


@pytest_asyncio.fixture
async def two(postgres_url: str) -> AsyncIterator[tuple[PostgresAgent, PostgresAgent]]:
    """Handles that know of each other only by way of the server."""
    agents = [PostgresAgent(postgres_url, cluster="hints", name="transport-1") for _ in range(2)]
    for agent in agents:
        await agent.open()
    yield agents[0], agents[1]
    for agent in agents:
        await agent.close()


@pytest_asyncio.fixture
async def heard(postgres_url: str, two: tuple[PostgresAgent, PostgresAgent]) -> AsyncIterator[list[str]]:
    """What is told on the agent's channel, without who told it."""
    messages: list[str] = []
    ear = await asyncpg.connect(postgres_url)
    await ear.add_listener(two[0].verbs.listening.channel, lambda *got: messages.append(str(got[3])[8:]))
    yield messages
    await ear.close()


async def quiet(agent: PostgresAgent) -> None:
    """Nothing that was told before is left to be heard."""
    while True:
        waiter = asyncio.ensure_future(agent.wait(LANES, 0.3))
        done, _ = await asyncio.wait([waiter], timeout=0.2)
        await waiter
        if not done:
            return


async def put_in_the_end(agent: PostgresAgent) -> None:
    """Put a job, however many connections of the pool have to be found dead before."""

    async def stored() -> bool:
        with contextlib.suppress(StoreError):
            return bool(await put_new(agent))
        return False

    await eventually(stored)


def end_all_sessions(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_a_listener_whose_connection_ends_comes_back(
    two: tuple[PostgresAgent, PostgresAgent], postgres_url: str
) -> None:
    agent, other = two
    await quiet(agent)
    waiter = asyncio.ensure_future(agent.wait(LANES, FAR))
    await asyncio.sleep(0)

    end_all_sessions(postgres_url)

    # What was told while nobody listened is lost, so who waits is woken to look.
    async with asyncio.timeout(PATIENCE):
        await waiter
    for each in two:
        await eventually(lambda each=each: each.verbs.listening.hearing)  # type: ignore[misc]
    await quiet(agent)
    waiter = asyncio.ensure_future(agent.wait(LANES, FAR))
    await asyncio.sleep(0)
    await put_in_the_end(other)
    async with asyncio.timeout(PATIENCE):
        await waiter


async def test_a_storm_of_puts_is_told_once_a_cooldown_and_to_its_end(
    two: tuple[PostgresAgent, PostgresAgent], heard: list[str]
) -> None:
    agent, other = two
    await quiet(agent)
    heard.clear()
    now_us = await other.store_now_us()
    began = time.monotonic()

    for lane in [LANE] * 200 + ["last"]:
        await other.put([make_job(now_us, lane=lane)], now_us + PUT_WINDOW_US)
    took = time.monotonic() - began
    await eventually(lambda: any("last" in message for message in heard))

    told = [message for message in heard if message.startswith("l")]
    assert 2 <= len(told) <= took / COOLDOWN_SECONDS + 2
    assert told[0] == f"l{LANE}"


async def test_ends_are_told_to_those_who_watch(two: tuple[PostgresAgent, PostgresAgent], heard: list[str]) -> None:
    agent, other = two
    [watched, unwatched] = await put_new(agent, 2)
    first = await claim_one(other)
    assert first.id == watched.id
    watcher = asyncio.ensure_future(agent.watch(frozenset({watched.id}), FAR))
    await eventually(lambda: "w" in heard)

    await settle(other, first)

    async with asyncio.timeout(PATIENCE):
        await watcher
    assert [message for message in heard if message[0] in "e*"]
    assert unwatched.id[-8:] not in "".join(heard)


async def test_ends_that_nobody_watches_are_not_told(
    two: tuple[PostgresAgent, PostgresAgent], heard: list[str]
) -> None:
    _, other = two
    await put_new(other)
    await settle(other, await claim_one(other))
    await put_new(other, lane="last")
    await eventually(lambda: any("last" in message for message in heard))

    assert not [message for message in heard if message[0] in "e*"]


async def test_a_job_that_ended_before_its_watch_was_heard_of_is_not_missed(
    two: tuple[PostgresAgent, PostgresAgent], heard: list[str]
) -> None:
    agent, other = two
    [job] = await put_new(agent)
    claimed = await claim_one(other)
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def nothing_has_ended_yet() -> bool:
        asked.set()
        await go_on.wait()
        return False

    # The store is asked before the job ends, and the other process hears of the watch only after that.
    watcher = asyncio.ensure_future(agent.verbs.listening.watch(frozenset({job.id}), FAR, nothing_has_ended_yet))
    await asked.wait()
    await settle(other, claimed)
    go_on.set()

    async with asyncio.timeout(PATIENCE):
        await watcher


async def test_one_that_cannot_hear_itself_is_not_believed(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(*_: object) -> None:
        """Takes LISTEN, as a pooler would, and nothing ever comes."""

    monkeypatch.setattr("jobmaster_agents.postgres.listening.ECHO_SECONDS", 0.1)
    monkeypatch.setattr(asyncpg.Connection, "add_listener", deaf)
    agent = PostgresAgent(postgres_url, cluster="hints", name="transport-1")
    try:
        await agent.open()

        assert not agent.verbs.listening.hearing
        await put_new(agent)
    finally:
        await agent.close()
