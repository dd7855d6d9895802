"""A nats-py whose own methods are not those that are known is used by its public calls, and everything works."""

import asyncio
from collections.abc import Callable

import pytest

from jobmaster.contracts.values import SettleAnswer
from jobmaster.model.errors import AgentUnreachable
from jobmaster.testing.agents.cases import LANE, claim, here, ids, new_job, put, put_new, records, settlement
from jobmaster_agents.nats import NatsAgent, frames
from tests.servers import Nats
from tests.support import eventually

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=["_process_msg", "_send_command", "_flush_pending", None])
def changed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the methods has other parameters than are known, or something of the state is gone."""
    if request.param is None:
        monkeypatch.setattr(frames, "PRIVATE_STATE", ("_pending", "_gone"))
    else:
        monkeypatch.setitem(frames.PRIVATE, request.param, ("self", "something_else"))


async def test_the_client_that_is_pinned_is_known(own_nats: Callable[..., Nats]) -> None:
    assert frames.Connection().direct


@pytest.mark.usefixtures("changed")
async def test_a_client_that_is_not_known_does_the_same(own_nats: Callable[..., Nats]) -> None:
    server = own_nats()
    agent = NatsAgent(server.url, cluster="c", name="a", options={"monitor": server.monitor})
    await agent.open()
    assert not agent.verbs.store.link.client.direct
    try:
        waiting = asyncio.create_task(agent.wait(frozenset({LANE}), 30))
        jobs = await put_new(agent, 30)
        await asyncio.wait_for(waiting, 10)
        claimed = await claim(agent, 20)
        assert ids(claimed) == ids(jobs)[:20]
        assert await agent.settle([settlement(job) for job in claimed]) == [SettleAnswer.ACCEPTED] * 20
        assert [record.job.id for record in await records(agent) if record.job] == ids(claimed)

        await asyncio.to_thread(server.restart)

        async def back() -> bool:
            try:
                await put(agent, await new_job(agent))
            except AgentUnreachable:
                return False
            return True

        await eventually(back)
        assert set(ids(jobs)[20:]) < set(ids(await claim(agent, 20)))
        assert (await here(agent, jobs[-1].id)).worker is not None
    finally:
        await agent.close()
