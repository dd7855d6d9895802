"""Messages of jobs on NATS that can't be read: they hold up nobody, and are kept and told of instead of going round."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.telemetry.probes import probes
from jobmaster.testing.agents.cases import claim, here, ids, put_new
from jobmaster_agents.nats import NatsAgent, damaged
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(nats_server: Endpoint) -> AsyncIterator[NatsStore]:
    store = NatsStore(nats_server)
    yield store
    await store.close()
    await store.dispose()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damaged, "DELAY_US", 20_000)
    monkeypatch.setattr(damaged, "DELIVERIES", 3)


async def test_one_that_nobody_can_read_is_set_aside_and_told_of(store: NatsStore, soon: None) -> None:
    agent = await store.open()
    assert isinstance(agent, NatsAgent)
    bad, good = await put_new(agent, 2)
    await store.corrupt(bad.id)
    met = probes()["unreadable_parcel"]

    assert ids(await claim(agent, 5)) == [good.id]
    assert probes()["unreadable_parcel"] == met + 1
    assert not any(bad.id in told for told in (await agent.probe()).findings)
    async with asyncio.timeout(10):
        while not any(bad.id in told for told in (await agent.probe()).findings):
            assert await claim(agent, 5) == []

    assert probes()["unreadable_parcel"] == met + 1
    assert [stats.ready for stats in await agent.stats()] in ([], [0])
    [kept], more = await agent.verbs.store.reader.page(
        agent.verbs.store.subjects.ctl_stream, agent.verbs.store.subjects.damaged("*"), 1, 10
    )
    assert (kept.data, more) == (b"\xc1", False)
    assert (await here(agent, good.id)).worker is not None
