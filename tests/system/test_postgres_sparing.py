"""What an agent on Postgres leaves for later while its looks pass a great many dead rows, and what it does not."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.testing.agents.cases import HANDLER, LANE, SHORT_US, claim_one, claimed_new, put_new, release
from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.sparing import Sparing
from tests.support import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def agent(postgres_url: str) -> AsyncIterator[PostgresAgent]:
    agent = PostgresAgent(postgres_url, cluster="sparing", name="transport-1")
    await agent.open()
    yield agent
    await agent.close()


def resting(looks: Sparing) -> None:
    """As after two looks of five seconds."""
    looks.begin()
    for _ in range(2):
        looks.took(5.0)


async def test_counts_stay_exact_while_the_oldest_is_not_looked_for(agent: PostgresAgent) -> None:
    [first] = await put_new(agent)
    [before] = await agent.stats()
    resting(agent.verbs.stats._looks)
    await put_new(agent, 2)
    await claim_one(agent)

    [counts] = await agent.stats()

    assert (counts.ready, counts.leased) == (2, 1)
    assert counts.oldest_ready_us == before.oldest_ready_us == first.due_us

    while counts.ready:
        await claim_one(agent)
        [counts] = await agent.stats()
    assert counts.oldest_ready_us is None


async def test_leases_that_ran_out_wait_for_the_next_look_and_those_of_the_dead_do_not(agent: PostgresAgent) -> None:
    job = await claimed_new(agent, ttl_us=SHORT_US)
    dead = await claimed_new(agent, worker="dead")

    async def over() -> bool:
        return await agent.store_now_us() > job.created_us + 2 * SHORT_US

    await eventually(over)
    resting(agent.verbs.leasing._looks)

    assert (await agent.reap(10)).requeued == 0
    assert (await agent.reap(10, frozenset({"dead"}), expired=False)).requeued == 1
    agent.verbs.leasing._looks.forget()
    assert (await agent.reap(10)).requeued == 1
    assert [lane.ready for lane in await agent.stats()] == [2]
    assert (await claim_one(agent)).id in (job.id, dead.id)


async def test_handlers_nobody_knows_are_looked_for_later_and_those_known_again_at_once(agent: PostgresAgent) -> None:
    await put_new(agent)
    assert (await agent.park(frozenset({"other"}), 10)).parked == {HANDLER: 1}
    await put_new(agent)
    resting(agent.verbs.heads)

    assert (await agent.park(frozenset({"other"}), 10)).parked == {}
    assert (await agent.park(frozenset({HANDLER}), 10)).unparked == 1

    agent.verbs.heads.forget()
    assert (await agent.park(frozenset({"other"}), 10)).parked == {HANDLER: 2}


async def test_a_job_that_comes_back_is_passed_over_until_a_line_may_be_looked_at_again(agent: PostgresAgent) -> None:
    jobs = await put_new(agent, 3)
    leased = await claim_one(agent)
    assert (await claim_one(agent)).id == jobs[1].id
    resting(agent.verbs.claiming.floors._lines[LANE].looks)
    await release(agent, leased)

    assert (await claim_one(agent)).id == jobs[2].id
    agent.verbs.claiming.floors._lines[LANE].looks.forget()
    assert (await claim_one(agent)).id == jobs[0].id
