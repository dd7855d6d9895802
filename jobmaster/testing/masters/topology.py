"""The master contract: opening, definitions, agents, workers."""

import pytest
from msgspec.structs import replace

from jobmaster.contracts.entries import AgentEntry, DefinitionEntry
from jobmaster.contracts.values import JobFilter, WorkerCard
from jobmaster.model.errors import Refused
from jobmaster.testing.masters.harness import SECOND, MasterHarness, held

AGENT = AgentEntry(name="transport-1", kind="sqlite", fingerprint="file:1", incarnation="a", high_water=10)
CARD = WorkerCard(
    id="worker-1-ü",
    name="worker-1",
    host="host-1",
    pid=42,
    lanes=("default", "mails"),
    handlers=("send-welcome",),
    slots=10,
    started_us=5,
)


class TopologyCases:
    @pytest.mark.asyncio
    async def test_opening_tells_who_the_store_is(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        first = await one.probe()
        assert first.incarnation == (await two.probe()).incarnation != ""
        if store.restartable:
            assert (await (await store.restart()).probe()).incarnation == first.incarnation

    @pytest.mark.asyncio
    async def test_a_closed_master_refuses_and_may_be_closed_again(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.close()
        await master.close()
        with pytest.raises(Refused, match="open"):
            await master.page(JobFilter(), None, 1)
        with pytest.raises(Refused, match="open"):
            await master.insert([held()])

    @pytest.mark.asyncio
    async def test_closing_one_handle_leaves_the_other(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        await one.close()
        item = held()
        await two.insert([item])
        assert await two.get([item.job.id]) == [item.job]

    @pytest.mark.asyncio
    async def test_store_time_goes_on(self, store: MasterHarness) -> None:
        master = await store.open()
        before = await master.store_now_us()
        await store.advance(2)
        assert 1.9 * SECOND < await master.store_now_us() - before < 30 * SECOND

    @pytest.mark.asyncio
    async def test_the_last_definition_wins(self, store: MasterHarness) -> None:
        master = await store.open()
        first = DefinitionEntry(name="send-welcome", lane="mails", priority=1, policy=b'{"timeout_us":1}', agent="a")
        other = DefinitionEntry(name="a.first", data_schema=b'{"type":"object"}')
        await master.define([first, other])
        await master.define([replace(first, lane="default"), replace(first, lane="bulk", data_schema=b"{}")])
        assert await master.definitions() == [other, replace(first, lane="bulk", data_schema=b"{}")]
        await master.define([])
        assert len(await master.definitions()) == 2

    @pytest.mark.asyncio
    async def test_an_agent_is_entered_and_answers_what_was_known(self, store: MasterHarness) -> None:
        master = await store.open()
        assert await master.enter_agent(AGENT) == AGENT
        later = replace(AGENT, high_water=20)
        assert await master.enter_agent(later) == AGENT
        assert await master.agents() == [later]

    @pytest.mark.asyncio
    async def test_the_mark_of_one_store_never_falls(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.enter_agent(AGENT)
        rewound = replace(AGENT, high_water=3)
        assert await master.enter_agent(rewound) == AGENT
        assert await master.enter_agent(rewound) == AGENT
        wiped = replace(AGENT, incarnation="b", high_water=0)
        assert await master.enter_agent(wiped) == AGENT
        assert await master.agents() == [wiped]

    @pytest.mark.asyncio
    async def test_another_store_under_the_same_name_changes_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.enter_agent(AGENT)
        other = replace(AGENT, fingerprint="file:2", incarnation="z", high_water=99)
        assert await master.enter_agent(other) == AGENT
        assert await master.enter_agent(other) == AGENT
        assert await master.agents() == [AGENT]

    @pytest.mark.asyncio
    async def test_workers_are_known_by_their_beat_until_they_leave(self, store: MasterHarness) -> None:
        master = await store.open()
        now_us = await master.store_now_us()
        await master.beat("transport-1", CARD)
        await store.advance(2)
        await master.beat("transport-2", replace(CARD, busy=3))
        await master.beat("transport-1", replace(CARD, id="worker-0"))
        first, second = await master.workers()
        assert (first[0], first[1].id) == ("transport-1", "worker-0")
        assert second[0] == "transport-2"
        assert replace(second[1], beat_us=0) == replace(CARD, busy=3)
        assert second[1].beat_us - now_us > SECOND
        await master.leave(CARD.id)
        await master.leave("nobody")
        assert [card.id for _, card in await master.workers()] == ["worker-0"]

    @pytest.mark.asyncio
    async def test_workers_silent_for_the_retention_are_forgotten(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.beat("transport-1", CARD)
        await master.prune(await master.store_now_us() - 60 * SECOND, 10)
        assert len(await master.workers()) == 1
        await master.prune(await master.store_now_us() + 60 * SECOND, 10)
        assert await master.workers() == []
