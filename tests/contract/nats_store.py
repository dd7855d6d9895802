"""The NATS server that the contract suite plays with: streams of their own for every case."""

from functools import partial
from typing import Any
from uuid import uuid4

import nats
from nats.js.errors import NotFoundError

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.testing.agents import AgentStore
from jobmaster_agents.nats import NatsAgent
from jobmaster_agents.nats.api import instant_us
from jobmaster_agents.nats.subjects import Subjects
from tests.servers.nats import Nats
from tests.servers.resolver import Endpoint
from tests.support import eventually

UNSAFE = {"accept_unsafe": True}


class NatsStore(AgentStore):
    """Streams on a server whose clock nobody moves."""

    claim_p99_seconds = 0.5

    def __init__(self, server: Endpoint) -> None:
        super().__init__()
        self.url = server.url
        # Of a server that was given nobody knows where its monitoring is.
        self.options: dict[str, Any] = (
            {"monitor": server.process.monitor} if isinstance(server.process, Nats) else UNSAFE
        )
        self.cluster = f"c{uuid4().hex[:10]}"
        self._named: set[tuple[str, str]] = set()

    async def open(
        self, *, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> AgentTransport:
        where = {"cluster": cluster or self.cluster, "name": name or self.name}
        agent = NatsAgent(self.url, **where, clock=clock, options=self.options)
        self._named.add((where["cluster"], where["name"]))
        await agent.open()
        return self.keep(agent)

    async def unsafe(self) -> AgentTransport:
        # Nothing says that this server syncs what it acknowledges.
        self._named.add((self.cluster, self.name))
        return self.keep(NatsAgent(self.url, cluster=self.cluster, name=self.name))

    async def advance(self, seconds: float) -> None:
        await super().advance(seconds)
        # The server fires a schedule up to 300 ms after its time.
        for agent in self._opened:
            await eventually(partial(_none_overdue, agent))

    async def corrupt(self, job_id: str) -> None:
        client = await nats.connect(self.url)
        subjects = Subjects(self.cluster, self.name)
        stream = client.jetstream()
        parcel = await stream.get_last_msg(subjects.jobs_stream, subjects.anywhere(job_id))
        assert parcel.subject is not None
        assert parcel.seq is not None
        await stream.delete_msg(subjects.jobs_stream, parcel.seq)
        await stream.publish(parcel.subject, b"\xc1")
        await client.close()

    async def dispose(self) -> None:
        """After the last use: the streams go."""
        client = await nats.connect(self.url)
        for cluster, name in self._named:
            subjects = Subjects(cluster, name)
            for stream in (subjects.jobs_stream, subjects.out_stream, subjects.ctl_stream):
                try:
                    await client.jetstream().delete_stream(stream)
                except NotFoundError:
                    continue
        await client.close()


async def _none_overdue(agent: AgentTransport) -> bool:
    """Whether no job of an open agent is still waiting though its time has come."""
    if not isinstance(agent, NatsAgent) or not agent.is_open:
        return True
    store = agent.verbs.store
    now_us = await store.ask_now_us()
    waiting = [
        stored.headers["Nats-Schedule"].removeprefix("@at ")
        for subject in (store.subjects.jobs, store.subjects.expiries)
        for stored in (await store.reader.page(store.subjects.jobs_stream, subject, 1, 1_000))[0]
        if "Nats-Schedule" in stored.headers
    ]
    return all(instant_us(text) > now_us for text in waiting)
