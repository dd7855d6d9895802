"""What a process wrote to the outcomes on NATS is not read back for the master, nor told for what stands there now."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.values import OutboxRecord
from jobmaster.coordination import syncer
from jobmaster.coordination.syncer import Syncer
from jobmaster.master.memory import MemoryMaster
from jobmaster.store_time import StoreTime
from jobmaster.testing.agents.cases import claim_one, claimed_new, put_new, records, settle
from jobmaster_agents.nats import NatsAgent, api, outbox
from jobmaster_agents.nats.recall import LEAST_BYTES
from jobmaster_agents.nats.records import encode
from jobmaster_agents.nats.streams import stream_configs
from tests.contract.nats_store import NatsStore
from tests.servers.resolver import Endpoint

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(nats_server: Endpoint) -> AsyncIterator[NatsStore]:
    store = NatsStore(nats_server)
    yield store
    await store.close()
    await store.dispose()


class Pages:
    """How much of the stream of outcomes a handle has read since it was looked at last."""

    def __init__(self, agent: NatsAgent, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read = agent.verbs.store.reader.page
        self._count = 0
        self.behind = False
        """Answers as a server that has heard of nothing yet."""
        monkeypatch.setattr(agent.verbs.store.reader, "page", self._page)

    async def _page(self, *arguments: Any) -> Any:
        page, more = await self._read(*arguments)
        self._count += len(page)
        return ([], False) if self.behind else (page, more)

    def taken(self) -> int:
        count, self._count = self._count, 0
        return count


Open = Callable[[], Awaitable[tuple[NatsAgent, Pages]]]


@pytest.fixture
def opened(store: NatsStore, monkeypatch: pytest.MonkeyPatch) -> Open:
    async def opened() -> tuple[NatsAgent, Pages]:
        agent = await store.open()
        assert isinstance(agent, NatsAgent)
        # Kept from the first look on.
        assert await records(agent) == []
        return agent, Pages(agent, monkeypatch)

    return opened


async def ended(agent: NatsAgent, count: int = 1) -> None:
    for _ in range(count):
        await settle(agent, await claimed_new(agent))


async def told_by_the_stream(store: NatsStore) -> list[OutboxRecord]:
    return await records(await store.open())


async def test_what_was_written_here_is_told_as_the_stream_has_it_and_not_read(store: NatsStore, opened: Open) -> None:
    agent, pages = await opened()
    await ended(agent, 3)

    told = await records(agent)

    assert pages.taken() == 0
    assert told == await told_by_the_stream(store)
    assert len(told) == 3
    await agent.confirm([record.seq for record in told])
    assert await records(agent) == []


async def test_what_others_wrote_in_between_is_read_and_told_in_its_place(store: NatsStore, opened: Open) -> None:
    (agent, pages), (other, _) = await opened(), await opened()
    for turn in (agent, other, agent, other, other, agent):
        await ended(turn)

    told = await records(agent)

    # A claim and an outcome of each of the others.
    assert pages.taken() == 6
    assert told == await told_by_the_stream(store)
    assert [record.seq for record in told] == sorted(record.seq for record in told)
    assert len(told) == 6


async def test_nothing_is_passed_over_while_a_server_is_behind(opened: Open) -> None:
    (agent, pages), (other, _) = await opened(), await opened()
    await ended(agent)
    await ended(other)
    await ended(agent)
    pages.behind = True

    assert len(await records(agent)) == 1
    pages.behind = False
    assert len(await records(agent)) == 3


async def test_what_was_removed_is_not_told_from_memory(opened: Open) -> None:
    agent, _ = await opened()
    await ended(agent, 2)
    await api.call(agent.verbs.store.link, f"STREAM.PURGE.{agent.verbs.store.subjects.out_stream}")

    assert await records(agent) == []


async def test_what_stands_there_after_a_setback_is_told(store: NatsStore, opened: Open) -> None:
    (agent, _), (other, _) = await opened(), await opened()
    await ended(agent, 2)
    link, subjects = other.verbs.store.link, other.verbs.store.subjects
    await api.call(link, f"STREAM.DELETE.{subjects.out_stream}")
    [config] = [
        each
        for each in stream_configs(subjects, replicas=1, retention="workqueue")
        if each["name"] == subjects.out_stream
    ]
    await api.call(link, f"STREAM.CREATE.{subjects.out_stream}", config)
    await ended(other, 3)

    told = await records(agent)

    assert told == await told_by_the_stream(store)
    assert len(told) == 3


async def test_what_is_too_much_to_keep_is_read(opened: Open) -> None:
    agent, pages = await opened()
    agent.verbs.store.shared.recall._most_bytes = 3 * LEAST_BYTES
    await ended(agent, 3)

    assert len(await records(agent)) == 3
    assert pages.taken() > 0


async def test_a_claim_leaves_nothing_to_tell(opened: Open) -> None:
    agent, pages = await opened()
    [job] = await put_new(agent)
    assert (await claim_one(agent)).id == job.id

    assert await records(agent) == []
    assert pages.taken() == 0


async def test_of_large_records_some_are_told_and_the_others_next_time(
    store: NatsStore, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = await opened()
    await ended(agent, 5)
    other = await store.open()
    everything = await records(other)
    monkeypatch.setattr(outbox, "MOST_READ_BYTES", 2 * max(len(encode(record.job)) for record in everything))

    told: list[OutboxRecord] = []
    while some := await other.changes(100):
        assert len(some) < 5
        told += some
        await other.confirm([record.seq for record in some])

    assert told == everything


async def test_after_large_records_the_master_is_brought_the_next_ones_at_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = await opened()
    clock = SystemClock()
    master = MemoryMaster(clock, url="memory:", cluster="test")
    await master.open()
    time = StoreTime(clock, agent.store_now_us)
    sync = Syncer(master, agent, time, clock, shared=False, is_mine=lambda worker: True)
    await ended(agent, 3)
    assert not await sync.sync(), "few and small: the next may gather"

    monkeypatch.setattr(syncer, "LARGE_BYTES", 3 * len(b"null"))
    await ended(agent, 3)
    assert await sync.sync()
    assert not await sync.sync()
    await master.close()
