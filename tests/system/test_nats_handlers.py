"""Workers that know different handlers share a lane on NATS, where a claim can't choose by handler."""

import asyncio
import time

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import SettleAnswer
from jobmaster.model.job import Job
from jobmaster.testing.agents.cases import LANE, LONG_US, card, make_job, put, settlement
from jobmaster_agents.nats import claiming, resting
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint
from tests.sizes import SIZES
from tests.support import eventually

STALL_SECONDS = 2.0
PATIENCE = 60.0
BATCH = 20


async def drain(agent: AgentTransport, handler: str, jobs: int) -> float:
    """Claim and settle the jobs of one handler; the longest time without one, while there were some."""
    await agent.register(card(handler, handlers=(handler,)))
    longest, last, done = 0.0, time.monotonic(), 0
    while done < jobs:
        claimed = await claim(agent, handler)
        if not claimed:
            await agent.wait(frozenset({LANE}), 0.1)
            continue
        assert {job.handler for job in claimed} == {handler}
        assert {job.attempts for job in claimed} == {0}
        answers = await agent.settle([settlement(job) for job in claimed])
        assert answers == [SettleAnswer.ACCEPTED] * len(claimed)
        now = time.monotonic()
        longest, last, done = max(longest, now - last), now, done + len(claimed)
    return longest


@pytest.mark.asyncio
async def test_the_last_jobs_of_a_lane_go_back_at_once_and_are_left_to_who_can_run_them(
    nats_server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "KNOWN_US", 60_000_000)
    monkeypatch.setattr(resting, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(resting, "LONGEST_SECONDS", 60.0)
    store = NatsStore(nats_server)
    try:
        mailer, printer = [await store.open() for _ in range(2)]
        await mailer.register(card("mailer", handlers=("mailer",)))
        now_us = await mailer.store_now_us()
        job = make_job(now_us, handler="mailer")
        await put(mailer, job)

        assert await claim(printer, "printer") == []
        await put(printer, make_job(now_us, handler="printer"))
        assert await claim(printer, "printer") == []

        async def mailed() -> bool:
            return [one.id for one in await claim(mailer, "mailer")] == [job.id]

        await eventually(mailed)
    finally:
        await store.close()
        await store.dispose()


async def claim(agent: AgentTransport, handler: str) -> list[Job]:
    return list(await agent.claim(handler, {LANE: BATCH}, frozenset({handler}), BATCH, LONG_US))


@pytest.mark.alone
@pytest.mark.asyncio
async def test_two_workers_with_disjoint_handlers_drain_one_lane(nats_server: Endpoint) -> None:
    store = NatsStore(nats_server)
    agents = [await store.open() for _ in range(2)]
    names = ["mailer", "printer"]
    now_us = await agents[0].store_now_us()
    each = SIZES.disjoint_jobs
    jobs = [make_job(now_us, handler=name) for _ in range(each) for name in names]
    try:
        await put(agents[0], *jobs)

        async with asyncio.timeout(PATIENCE):
            stalls = await asyncio.gather(
                *(drain(agent, name, each) for agent, name in zip(agents, names, strict=True))
            )

        assert max(stalls) < STALL_SECONDS
        assert await agents[0].inventory("", 10) == []
    finally:
        await store.close()
        await store.dispose()
