"""A client of NATS that reads too slowly is cut off by the server: what it was being sent is not lost."""

from collections.abc import Callable

import pytest

from jobmaster.contracts.values import PutAnswer, SettleAnswer
from jobmaster.model.errors import AgentUnreachable
from jobmaster.testing.agents.cases import claim, ids, put_new, records, settlement
from jobmaster_agents.nats import NatsAgent, connection, streams
from jobmaster_agents.nats.messages import Message
from tests.servers import Nats
from tests.support import eventually, until

pytestmark = pytest.mark.asyncio

JOBS = 120
DATA = b'"' + b"x" * 100_000 + b'"'


async def test_what_a_slow_reader_was_sent_comes_again(
    own_nats: Callable[..., Nats], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_nats(settings={"max_pending": "4MB"})
    options = {"monitor": server.monitor, "ack_wait": 1}
    agent = NatsAgent(server.url, cluster="c", name="a", options=options)
    await agent.open()
    monkeypatch.setattr(streams, "BURST_BYTES", 64_000_000)
    heard = connection._Slot.heard
    stalled: list[Message] = []

    def stalling(self: connection._Slot, message: Message) -> None:
        """At the first job, the whole process stands still until the server has had enough of it."""
        if not stalled and message.status is None:
            stalled.append(message)
            streams.BURST_BYTES = 1_000_000
            until(lambda: "Slow Consumer" in server.log, within=20, what="the server has had enough", every=0.05)
        heard(self, message)

    monkeypatch.setattr(connection._Slot, "heard", stalling)
    try:
        wanted: set[str] = set()
        for _ in range(8):
            wanted |= set(ids(await put_new(agent, JOBS // 8, data=DATA)))
        ended: set[str] = set()

        async def everything_ended() -> bool:
            try:
                await agent.reap(JOBS)
                jobs = await claim(agent, JOBS, ttl_us=2_000_000)
                answers = await agent.settle([settlement(job) for job in jobs])
            except AgentUnreachable:
                return False
            ended.update(job.id for job, answer in zip(jobs, answers, strict=True) if answer is SettleAnswer.ACCEPTED)
            return ended == wanted

        await eventually(everything_ended, within=60)
        assert stalled
        assert "Slow Consumer" in server.log
        told = [record.job.id for record in await records(agent) if record.job is not None and record.job.terminal]
        assert sorted(told) == sorted(wanted)
    finally:
        await agent.close()


async def test_what_is_too_much_for_one_answer_is_asked_for_again(
    own_nats: Callable[..., Nats], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_nats()
    agent = NatsAgent(server.url, cluster="c", name="a", options={"monitor": server.monitor})
    await agent.open()
    try:
        monkeypatch.setattr(streams, "BURST_BYTES", 350_000)
        jobs = await put_new(agent, 12, data=DATA)
        assert [job.id if job else None for job in await agent.find(ids(jobs))] == ids(jobs)
        assert [item.id for item in await agent.inventory("", 100)] == sorted(ids(jobs))
        claimed = [job for _ in range(4) for job in await claim(agent, 12)]
        assert ids(claimed) == ids(jobs)
        await agent.settle([settlement(job) for job in claimed])

        assert len(await records(agent)) == 12
        # Each has a record by now: none may be taken for a new one.
        assert await agent.put(jobs, jobs[0].created_us + 600_000_000) == [PutAnswer.TOMBSTONED] * 12
    finally:
        await agent.close()
