"""Outcomes on NATS are forgotten from the front of their stream, and never while they are needed."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.contracts.values import PutAnswer
from jobmaster.model.outcome import RunOutcome
from jobmaster.testing.agents.cases import (
    HOUR_US,
    claim,
    claim_one,
    claimed_new,
    here,
    make_job,
    put,
    put_new,
    records,
    settle,
    settlement,
)
from jobmaster_agents.nats import NatsAgent
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def agent(nats_server: Endpoint) -> AsyncIterator[NatsAgent]:
    store = NatsStore(nats_server)
    agent = await store.open()
    assert isinstance(agent, NatsAgent)
    # The shortest that is allowed is longer than a test.
    agent.verbs.store.options.keep_us = 0
    yield agent
    await store.close()
    await store.dispose()


async def first_seq(agent: NatsAgent) -> int:
    return int((await agent.verbs.store.reader.state())["first_seq"])


async def confirm_all(agent: NatsAgent) -> None:
    await agent.confirm([record.seq for record in await records(agent)])


async def test_what_the_master_has_not_read_stays(agent: NatsAgent) -> None:
    await put_new(agent, 3)
    jobs = await claim(agent, 3)
    await agent.settle([settlement(job) for job in jobs])
    written = await records(agent)
    await agent.confirm([written[0].seq])

    assert await agent.prune(100) == 1

    assert [record.seq for record in await records(agent)] == [record.seq for record in written[1:]]
    await confirm_all(agent)
    assert [await agent.prune(1), await agent.prune(100), await agent.prune(100)] == [1, 1, 0]
    assert await put(agent, jobs[0]) == [PutAnswer.STORED]


async def test_what_is_younger_than_it_must_be_stays(agent: NatsAgent) -> None:
    agent.verbs.store.options.keep_us = HOUR_US
    job = await claimed_new(agent)
    await settle(agent, job)
    await confirm_all(agent)

    assert await agent.prune(100) == 0
    assert await put(agent, job) == [PutAnswer.TOMBSTONED]


async def test_a_lease_holds_the_floor(agent: NatsAgent) -> None:
    held = await claimed_new(agent)
    await settle(agent, await claimed_new(agent))
    await confirm_all(agent)

    assert await agent.prune(100) == 0
    assert await settle(agent, held) == "accepted"
    await confirm_all(agent)
    assert await agent.prune(100) == 2


async def test_a_waiting_job_does_not_hold_it(agent: NatsAgent) -> None:
    waiting = await claimed_new(agent)
    await settle(agent, waiting, RunOutcome.RETRY_AT, after_us=HOUR_US, error="ValueError: no")
    stands = await here(agent, waiting.id)
    await settle(agent, await claimed_new(agent))
    await confirm_all(agent)
    before = await first_seq(agent)

    assert await agent.prune(100) == 1

    assert await first_seq(agent) > before
    # What was removed here is no fault of the store.
    assert not (await agent.probe()).emptied
    assert await here(agent, waiting.id) == stands
    assert await records(agent) == []
    assert await put(agent, make_job(1, id=waiting.id)) == [PutAnswer.DUPLICATE]


async def test_a_job_taken_while_its_record_is_written_again_keeps_its_lease(agent: NatsAgent) -> None:
    job = await claimed_new(agent)
    await settle(agent, job, RunOutcome.INTERRUPTED)
    await settle(agent, await claimed_new(agent, priority=0))
    await confirm_all(agent)
    await agent.prune(100)

    again = await claim_one(agent)

    assert (again.id, again.interrupts) == (job.id, 1)
    assert again.token > job.token
    assert await settle(agent, again) == "accepted"
