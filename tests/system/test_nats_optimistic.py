"""Optimistic lanes of NATS: what leaving out a claim's record weakens, and that it weakens nothing else."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.contracts.values import ExtendAnswer, Extension, SettleAnswer
from jobmaster.model.policy import Policy
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import LANE, LONG_US, claim, claim_one, claimed_new, here, put_new, records, settle
from jobmaster_agents.nats import NatsAgent
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(nats_server: Endpoint) -> AsyncIterator[NatsStore]:
    store = NatsStore(nats_server)
    store.options = {**store.options, "optimistic": LANE}
    yield store
    await store.close()
    await store.dispose()


async def last_seq(agent: NatsAgent) -> int:
    return int((await agent.verbs.store.reader.state())["last_seq"])


async def opened(store: NatsStore) -> NatsAgent:
    agent = await store.open()
    assert isinstance(agent, NatsAgent)
    return agent


async def test_a_first_delivery_leaves_no_record_and_a_finish_leaves_one(store: NatsStore) -> None:
    agent = await opened(store)
    job = await claimed_new(agent)

    # What is given up: nobody but the holder can tell that it runs.
    assert await last_seq(agent) == 0
    assert (await here(agent, job.id)).state is JobState.QUEUED

    assert await settle(agent, job) is SettleAnswer.ACCEPTED
    assert await settle(agent, job) is SettleAnswer.ACCEPTED
    assert await last_seq(agent) == 1
    [record] = await records(agent)
    assert record.run is not None
    assert record.run.token == job.token


async def test_of_two_who_were_given_one_delivery_the_first_finish_wins(store: NatsStore) -> None:
    first, second = await opened(store), await opened(store)
    job = await claimed_new(first)
    held = first.verbs.store.shared.held[job.id]
    # As after the crash of a server that had not yet stored whom it delivered to: both believe to be the first.
    second.verbs.store.shared.held[job.id] = held

    assert await settle(second, job, result=b"2") is SettleAnswer.ACCEPTED
    assert await settle(first, job, result=b"1") is SettleAnswer.STALE
    [record] = await records(first)
    assert record.job is not None
    assert record.job.result == b"2"


async def test_a_second_delivery_is_recorded_with_a_higher_token(store: NatsStore) -> None:
    first, second = await opened(store), await opened(store)
    zombie = await claimed_new(first)
    link = second.verbs.store.link
    await link.ask(first.verbs.store.shared.held[zombie.id].ack, b"-NAK")

    taken = await claim_one(second)

    assert taken.token > zombie.token
    assert await last_seq(second) == 1
    assert await settle(first, zombie) is SettleAnswer.STALE
    assert await settle(second, taken) is SettleAnswer.ACCEPTED
    assert await claim(first) == []


async def test_a_lease_that_is_extended_gets_its_record(store: NatsStore) -> None:
    agent = await opened(store)
    job = await claimed_new(agent)

    assert await agent.extend([Extension(job.id, job.token, started=True)], LONG_US) == [ExtendAnswer.HELD]

    stands = await here(agent, job.id)
    assert (stands.state, stands.claim_seq) == (JobState.RUNNING, job.claim_seq)
    assert stands.started_us is not None
    assert await settle(agent, job) is SettleAnswer.ACCEPTED


async def test_jobs_that_must_not_run_twice_are_recorded_all_the_same(store: NatsStore) -> None:
    agent = await opened(store)
    await put_new(agent, policy=Policy(at_most_once=True).encode())

    job = await claim_one(agent)

    assert (await here(agent, job.id)).state is JobState.RUNNING
