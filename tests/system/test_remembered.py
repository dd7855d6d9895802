"""A process brings over what it settled without reading it back: from memory the same records come as from the outbox,
and what does not come from memory comes from there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from msgspec import structs

from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.entries import ApplyAnswer
from jobmaster.contracts.values import Extension, OutboxRecord, SettleAnswer, Settlement
from jobmaster.coordination.syncer import Syncer
from jobmaster.master.memory import MemoryMaster
from jobmaster.model.errors import MasterUnavailable
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.store_time import StoreTime
from jobmaster.testing.agents.cases import LONG_US, claim, put_new, settlement
from jobmaster_agents.mysql import MysqlAgent
from jobmaster_agents.postgres import PostgresAgent

pytestmark = pytest.mark.asyncio

Agent = PostgresAgent | MysqlAgent
AGENTS: dict[str, type[Agent]] = {"postgres": PostgresAgent, "mysql": MysqlAgent}


@pytest_asyncio.fixture
async def agent(sql_kind: str, sql_url: str) -> AsyncIterator[Agent]:
    agent = AGENTS[sql_kind](sql_url, cluster="test", name="transport-1")
    await agent.open()
    assert agent.remembered(10) == []
    yield agent
    await agent.close()


async def leased(agent: Agent, count: int = 1, **fields: Any) -> list[Job]:
    await put_new(agent, count, **fields)
    return await claim(agent, count)


def outcome(job: Job, kind: RunOutcome = RunOutcome.SUCCEEDED, **fields: Any) -> Settlement:
    return structs.replace(settlement(job, kind, **fields), job=job)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"result": b"1"},
        {"started_us": 1 << 60},
        {"kind": RunOutcome.FAILED},
        {"kind": RunOutcome.FAILED, "reason": "rejected", "error": "E: no", "detail": b"{}"},
        {"progress": 30, "progress_note": "nearly"},
    ],
)
@pytest.mark.parametrize("job_fields", [{}, {"labels": b"{}", "attempts": 2, "error": "E: before", "snoozes": 1}])
async def test_a_record_from_memory_is_the_outboxs(
    agent: Agent, fields: dict[str, Any], job_fields: dict[str, Any]
) -> None:
    jobs = await leased(agent, 3, **job_fields)
    await agent.settle([outcome(job, **fields) for job in jobs])
    stored = await agent.changes(10)
    assert len(stored) == 3
    assert sorted(agent.remembered(10), key=lambda record: record.seq) == stored
    assert agent.remembered(10) == []


async def test_effects_are_remembered_as_such(agent: Agent) -> None:
    [job] = await leased(agent, effects=True)
    await agent.settle([outcome(job)])
    assert agent.remembered(10) == await agent.changes(10)


async def test_what_changed_since_the_claim_is_not_remembered(agent: Agent) -> None:
    reported, same = await leased(agent, 2)
    await agent.extend([Extension(reported.id, reported.token, progress=50, progress_note="half")], LONG_US)
    await agent.settle([outcome(reported), outcome(same)])
    [record] = agent.remembered(10)
    assert record.job is not None
    assert record.job.id == same.id
    assert len(await agent.changes(10)) == 2


async def test_a_stale_or_repeated_settle_is_not_remembered(agent: Agent) -> None:
    [job] = await leased(agent)
    await agent.settle([outcome(job)])
    assert len(agent.remembered(10)) == 1
    assert await agent.settle([outcome(job)]) == [SettleAnswer.ACCEPTED]
    assert await agent.settle([outcome(job, RunOutcome.FAILED)]) == [SettleAnswer.STALE]
    assert agent.remembered(10) == []


async def test_memory_is_bounded_and_the_outbox_has_the_rest(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmaster.remembered.MOST_BYTES", 40)
    for job in await leased(agent, 6, data=b'"twenty bytes of it"'):
        await agent.settle([outcome(job)])
    assert len(agent.remembered(10)) == 2
    assert len(await agent.changes(10)) == 6
    [job] = await leased(agent)
    await agent.settle([outcome(job)])
    assert len(agent.remembered(10)) == 1, "what was taken still counts"


async def test_who_never_asked_keeps_nothing(agent: Agent, sql_kind: str, sql_url: str) -> None:
    other = AGENTS[sql_kind](sql_url, cluster="test", name="transport-1")
    await other.open()
    [job] = await leased(other)
    await other.settle([outcome(job)])
    assert other.remembered(10) == []
    await other.close()


class Flaky(MemoryMaster):
    """A master that does not take the first batch."""

    refused = 0

    async def apply(self, agent: str, records: Sequence[OutboxRecord], after: int | None = None) -> list[ApplyAnswer]:
        if not self.refused:
            self.refused = len(records)
            raise MasterUnavailable("it is away")
        return await super().apply(agent, records, after)


async def test_what_did_not_get_over_from_memory_comes_from_the_outbox(agent: Agent) -> None:
    clock = SystemClock()
    master = Flaky(clock, url="memory:", cluster="test")
    await master.open()
    time = StoreTime(clock, agent.store_now_us)
    syncer = Syncer(master, agent, time, clock, shared=False, is_mine=lambda worker: True)
    first, second = await leased(agent, 2)
    await agent.settle([outcome(first)])
    with pytest.raises(MasterUnavailable):
        await syncer.sync()
    await agent.settle([outcome(second)])
    for _ in range(3):
        await syncer.sync()
    assert master.refused == 1
    assert await agent.changes(10) == []
    found = await master.get([first.id, second.id])
    assert [job is not None and job.terminal for job in found] == [True, True]
    await master.close()


class Meeting(MemoryMaster):
    """A master that answers no batch before two have come, and takes only one of them."""

    def __init__(self, *given: Any, **also: Any) -> None:
        super().__init__(*given, **also)
        self.barrier = asyncio.Barrier(2)

    async def apply(self, agent: str, records: Sequence[OutboxRecord], after: int | None = None) -> list[ApplyAnswer]:
        async with asyncio.timeout(10):
            place = await self.barrier.wait()
        if place == 0:
            raise MasterUnavailable("it is away")
        return await super().apply(agent, records, after)


async def test_two_batches_are_brought_over_at_once_each_for_itself(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmaster.coordination.syncer.REMEMBERED_BATCH", 2)
    clock = SystemClock()
    master = Meeting(clock, url="memory:", cluster="test")
    await master.open()
    syncer = Syncer(
        master, agent, StoreTime(clock, agent.store_now_us), clock, shared=False, is_mine=lambda worker: True
    )
    await agent.settle([outcome(job) for job in await leased(agent, 4)])

    with pytest.raises(MasterUnavailable):
        await syncer.sync()

    assert len(await agent.changes(10)) == 2
