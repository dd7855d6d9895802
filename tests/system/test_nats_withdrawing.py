"""A job that is withdrawn while the server fires its parcel leaves nothing in the lane that somebody would wait for."""

from collections.abc import Sequence

import pytest

from jobmaster.testing.agents.cases import put_new
from jobmaster_agents.nats import NatsAgent, parcels
from jobmaster_agents.nats.connection import Request
from jobmaster_agents.nats.store import Store
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint
from tests.support import eventually

pytestmark = pytest.mark.asyncio


async def test_what_fires_while_it_is_withdrawn_goes_with_the_next_pass(
    nats_server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = NatsStore(nats_server)
    agent = await store.open()
    assert isinstance(agent, NatsAgent)
    [job] = await put_new(agent, due_us=await agent.store_now_us() + 500_000)

    def remove_none(_store: Store, _seqs: Sequence[int]) -> list[Request]:
        return []

    with monkeypatch.context() as meanwhile:
        # As if the server had fired it just before: then it is not where it was taken from.
        meanwhile.setattr(parcels, "remove", remove_none)
        assert await agent.withdraw(None, 10) == [job.id]

    async def ready() -> int:
        return sum(lane.ready for lane in await agent.stats())

    await eventually(ready)
    assert await agent.withdraw(None, 10) == []
    assert await ready() == 0
    await store.close()
    await store.dispose()
