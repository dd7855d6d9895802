"""A job too large for a message is refused together with those it was put with, before any of them is sent."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.contracts.values import PutAnswer
from jobmaster.model.errors import Refused
from jobmaster.testing.agents.cases import new_job, put
from jobmaster_agents.nats import connection
from jobmaster_agents.nats.streams import MESSAGE_BYTES
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(nats_server: Endpoint) -> AsyncIterator[NatsStore]:
    store = NatsStore(nats_server)
    yield store
    await store.close()
    await store.dispose()


@pytest.mark.parametrize("field", ["data", "labels"])
async def test_nothing_is_there_of_a_put_with_a_job_too_large(
    store: NatsStore, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MADE", 1)
    agent = await store.open()
    small = [await new_job(agent) for _ in range(3)]
    large = await new_job(agent, **{field: b'"' + b"x" * MESSAGE_BYTES + b'"'})

    with pytest.raises(Refused, match="keep large data elsewhere"):
        await put(agent, *small, large)

    assert await agent.find([job.id for job in small]) == [None] * 3
    assert await put(agent, *small) == [PutAnswer.STORED] * 3
