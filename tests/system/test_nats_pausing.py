"""A pause of a NATS agent holds for claims that began before it: settings and parcels are in streams of their own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.contracts.values import Control, ControlKind
from jobmaster.testing.agents.cases import LANE, claim, put_new
from jobmaster_agents.nats import NatsAgent
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(nats_server: Endpoint) -> AsyncIterator[NatsStore]:
    store = NatsStore(nats_server)
    yield store
    await store.close()
    await store.dispose()


@pytest.mark.parametrize("lane", [None, LANE])
async def test_what_was_put_after_a_pause_is_not_claimed(
    store: NatsStore, lane: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimer, operator = await store.open(), await store.open()
    assert isinstance(claimer, NatsAgent)
    kinds = (
        (ControlKind.PAUSE, ControlKind.RESUME) if lane is None else (ControlKind.PAUSE_LANE, ControlKind.RESUME_LANE)
    )
    pause, resume = (Control(kind, lane) for kind in kinds)
    assert await claim(claimer) == []
    consumers = claimer.verbs.store.consumers
    ids: list[str] = []
    ensure = consumers.ensure

    async def paused_meanwhile(lanes: set[str]) -> None:
        """Between the look at the settings and the fetch."""
        await ensure(lanes)
        if not ids:
            await operator.control(pause)
            ids.extend(job.id for job in await put_new(operator))

    monkeypatch.setattr(consumers, "ensure", paused_meanwhile)

    assert await claim(claimer) == []
    assert await claim(claimer) == []
    await operator.control(resume)
    assert [job.id for job in await claim(claimer)] == ids
