"""The NATS transport keeps the agent contract where three servers keep three copies, any of which may answer a read."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from jobmaster.contracts.agent import AgentTransport
from jobmaster.model.job import Job
from jobmaster.testing.agents import AgentStore
from jobmaster.testing.agents.amend import AmendCases
from jobmaster.testing.agents.lease import LeaseCases
from jobmaster.testing.agents.reap import ReapCases
from jobmaster.testing.agents.release import ReleaseCases
from jobmaster.testing.agents.revoke import WithdrawCases
from jobmaster.testing.agents.settle import SettleCases
from tests.contract.nats_store import NatsStore
from tests.servers import Endpoint, NatsCluster, Unavailable
from tests.servers.fixtures import missing
from tests.sizes import SIZES
from tests.support import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SIZES.name != "full", reason="three servers that all sync take their time: in the full size"),
]


@pytest.fixture(scope="module")
def three() -> Iterator[NatsCluster]:
    cluster = NatsCluster()
    try:
        yield cluster.start()
    except Unavailable as error:
        missing(str(error))
    finally:
        cluster.remove()


LAG_SECONDS = 0.5


class ReplicatedStore(NatsStore):
    """A consumer has a leader of its own, which may hear of a message a moment after it was acknowledged. A worker
    polls; so a claim that finds nothing is made again for a moment."""

    async def open(self, **where: Any) -> AgentTransport:
        agent = await super().open(**where)
        claim_once = agent.claim

        async def claim(*given: Any) -> list[Job]:
            with suppress(AssertionError):
                return await eventually(lambda: claim_once(*given), within=LAG_SECONDS, what="there is a job")
            return []

        agent.claim = claim  # type: ignore[assignment, method-assign]
        return agent


class TestReplicatedNatsAgent(AmendCases, LeaseCases, ReapCases, ReleaseCases, SettleCases, WithdrawCases):
    @pytest_asyncio.fixture
    async def store(self, three: NatsCluster) -> AsyncIterator[AgentStore]:
        server = Endpoint("nats", three.url, "started", stop=lambda: None, process=three.nodes[0])
        store = ReplicatedStore(server)
        store.options = {"monitor": three.monitors, "replicas": 3}
        yield store
        await store.close()
        store.url = three.urls[0]
        await store.dispose()
