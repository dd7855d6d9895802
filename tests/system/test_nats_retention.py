"""Where acknowledged parcels stay until they are purged below a floor: the same semantics, and nothing piles up."""

import pytest

from jobmaster.contracts.values import LaneStats, PutAnswer
from jobmaster.model.outcome import RunOutcome
from jobmaster.testing.agents.cases import HOUR_US, claim, claim_one, ids, put, put_new, settle, settlement
from jobmaster_agents.nats import NatsAgent, api
from jobmaster_agents.nats.flooring import EVERY_SECONDS
from tests.servers import Nats
from tests.servers.resolver import Endpoint
from tests.support import eventually


@pytest.mark.asyncio
async def test_what_is_done_with_is_purged_and_nothing_else(nats_server: Endpoint) -> None:
    server = nats_server.process
    safe = {"monitor": server.monitor} if isinstance(server, Nats) else {"accept_unsafe": True}
    options = {**safe, "retention": "limits"}
    agent = NatsAgent(nats_server.url, cluster="floor", name="a", options=options)
    await agent.open()
    store = agent.verbs.store
    try:
        jobs = await put_new(agent, 20)
        [late] = await put_new(agent, due_us=await agent.store_now_us() + HOUR_US)
        done = await claim(agent, 10)
        await agent.settle([settlement(job) for job in done])
        again = await claim_one(agent)
        await settle(agent, again, RunOutcome.RETRY_AT)

        # Ended jobs stay ended while their parcels are still there.
        assert await put(agent, *jobs[:10]) == [PutAnswer.TOMBSTONED] * 10

        async def left() -> int:
            await agent.promote(10)
            return int((await api.call(store.link, f"STREAM.INFO.{store.subjects.jobs_stream}"))["state"]["messages"])

        async def purged() -> bool:
            # Nine that wait, the one that is tried again, and the one for later.
            return await left() == 11

        await eventually(purged, within=10 + 2 * EVERY_SECONDS)
        assert await agent.stats() == [
            LaneStats(lane="default", ready=10, delayed=1, oldest_ready_us=jobs[0].due_us),
        ]
        assert sorted(ids(await claim(agent, 20))) == sorted(ids(jobs[10:]))
        assert await agent.find([late.id]) != [None]
    finally:
        for stream in (store.subjects.jobs_stream, store.subjects.out_stream, store.subjects.ctl_stream):
            await api.call(store.link, f"STREAM.DELETE.{stream}")
        await agent.close()
