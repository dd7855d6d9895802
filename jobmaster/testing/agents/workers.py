"""Workers as the agent knows them, and the hints left for them."""

import msgspec

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Signal, SignalKind
from jobmaster.testing.agents.cases import SHORT, AgentCases, card
from jobmaster.testing.agents.harness import AgentStore


class WorkerCases(AgentCases):
    async def test_a_registered_worker_is_known_with_its_beat(self, store: AgentStore, agent: AgentTransport) -> None:
        before_us = await agent.store_now_us()
        given = card(
            "w1", lanes=("a", "b"), handlers=("x", "y"), busy=3, state="quiet", version="1.2", beat_us=5, rss_bytes=9
        )

        await agent.register(given)

        [known] = await (await store.open()).workers()
        assert before_us <= known.beat_us <= await agent.store_now_us()
        assert msgspec.structs.replace(known, beat_us=5) == given

    async def test_a_heartbeat_replaces_the_card(self, store: AgentStore, agent: AgentTransport) -> None:
        await agent.register(card("w1"))
        [first] = await agent.workers()
        await store.advance(SHORT)
        await agent.register(card("w1", busy=7))

        [second] = await agent.workers()

        assert second.busy == 7
        assert second.beat_us > first.beat_us

    async def test_a_worker_that_left_is_gone(self, agent: AgentTransport) -> None:
        await agent.register(card("w1"))
        await agent.register(card("w2"))

        await agent.deregister("w1")
        await agent.deregister("w1")
        await agent.deregister("never-seen")

        assert [known.id for known in await agent.workers()] == ["w2"]

    async def test_signals_are_taken_once_by_whom_they_are_for(self, store: AgentStore, agent: AgentTransport) -> None:
        for_1 = [
            Signal("w1", SignalKind.CANCEL, "job-1"),
            Signal("w1", SignalKind.QUIET),
            Signal("w1", SignalKind.SCALE, "0199f0a3c5d2.10000.0123456789ab"),
        ]
        await agent.signal([*for_1, Signal("w2", SignalKind.STOP)])
        other = await store.open()

        assert sorted(await other.signals("w1"), key=str) == sorted(for_1, key=str)
        assert await agent.signals("w1") == []
        assert await agent.signals("w2") == [Signal("w2", SignalKind.STOP)]
        assert await agent.signals("never-seen") == []
