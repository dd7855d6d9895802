"""The master contract: opening, definitions, agents, workers."""

import pytest
from msgspec.structs import replace

from jobmaster.contracts.entries import AgentEntry, AgentState, DefinitionEntry, Event
from jobmaster.contracts.values import JobFilter, WorkerCard
from jobmaster.model.errors import Refused
from jobmaster.model.ids import new_id
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
    loop_lag_us=1_500,
    rss_bytes=80_000_000,
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
    async def test_what_an_operator_decides_of_an_agent_stays_and_is_recorded(self, store: MasterHarness) -> None:
        master = await store.open()
        assert await master.turn_agent("transport-1", AgentState.PAUSED, None, "ann@host") is None
        await master.enter_agent(AGENT)
        draining = replace(AGENT, state=AgentState.DRAINING, target="transport-2")
        assert await master.turn_agent("transport-1", AgentState.DRAINING, "transport-2", "ann@host") == draining
        # Neither a start nor a reconciliation changes it, nor does saying it twice.
        await master.enter_agent(replace(AGENT, high_water=30))
        renewed = await master.renew_agent(replace(AGENT, high_water=30), replace(AGENT, incarnation="b"))
        assert (renewed.state, renewed.target) == (AgentState.DRAINING, "transport-2")
        assert await master.agents() == [renewed]
        again = await master.turn_agent("transport-1", AgentState.DRAINING, "transport-2", "bob@host")
        assert again == renewed
        unless = frozenset({AgentState.DRAINING})
        assert await master.turn_agent("transport-1", AgentState.OPEN, None, "bob@host", unless) == renewed
        await master.turn_agent("transport-1", AgentState.OPEN, None, "bob@host")
        last, first = await master.events("transport-1", None, 10)
        assert (first.kind, first.who, first.detail) == ("agent.draining", "ann@host", b'{"target":"transport-2"}')
        assert (last.kind, last.who, last.detail) == ("agent.open", "bob@host", None)
        assert 0 < first.at_us <= last.at_us

    @pytest.mark.asyncio
    async def test_events_are_read_newest_first_by_subject_and_page(self, store: MasterHarness) -> None:
        master = await store.open()
        ids = [new_id() for _ in range(6)]
        events = [
            Event(id=job_id, kind="worker.joined", subject=f"w{number % 2}", who="here")
            for number, job_id in enumerate(ids)
        ]
        await master.record(events)
        await master.record([replace(events[0], who="elsewhere")])
        await master.record([])
        assert [event.id for event in await master.events(None, None, 4)] == ids[:1:-1]
        assert [event.id for event in await master.events(None, ids[2], 4)] == [ids[1], ids[0]]
        assert [event.id for event in await master.events("w1", None, 2)] == [ids[5], ids[3]]
        assert [event.id for event in await master.events("w1", ids[3], 2)] == [ids[1]]
        assert (await master.events("w0", ids[1], 1))[0].who == "here"

    @pytest.mark.asyncio
    async def test_the_mark_of_one_store_never_falls(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.enter_agent(AGENT)
        rewound = replace(AGENT, high_water=3)
        assert await master.enter_agent(rewound) == AGENT
        assert await master.enter_agent(rewound) == AGENT
        assert await master.agents() == [AGENT]

    @pytest.mark.asyncio
    async def test_another_life_of_a_store_is_not_taken_in_by_itself(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.enter_agent(AGENT)
        wiped = replace(AGENT, incarnation="b", high_water=0)
        assert await master.enter_agent(wiped) == AGENT
        assert await master.agents() == [AGENT]

    @pytest.mark.asyncio
    async def test_of_several_who_renew_an_agent_all_get_one_answer(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        await one.enter_agent(AGENT)
        first, second = (replace(AGENT, incarnation=name, high_water=3) for name in "bc")
        assert await one.renew_agent(AGENT, first) == first
        assert await two.renew_agent(AGENT, second) == first
        assert await two.agents() == [first]
        assert await two.renew_agent(first, second) == second
        elsewhere = replace(second, fingerprint="file:2")
        assert await one.renew_agent(second, elsewhere) == elsewhere
        assert await one.renew_agent(second, replace(second, incarnation="d")) == elsewhere
        assert await one.agents() == [elsewhere]
        new = replace(AGENT, name="transport-2")
        assert await one.renew_agent(new, new) == new

    @pytest.mark.asyncio
    async def test_why_an_agent_is_quarantined_is_known_until_it_is_renewed(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.enter_agent(AGENT)
        await master.enter_agent(replace(AGENT, name="transport-2"))
        await master.note_quarantine("transport-1", "its mark fell")
        await master.note_quarantine("transport-1", "its mark fell from 10 to 3")
        await master.enter_agent(replace(AGENT, high_water=12))
        noted = replace(AGENT, high_water=12, quarantined="its mark fell from 10 to 3")
        assert await master.enter_agent(AGENT) == noted
        assert [entry.quarantined for entry in await master.agents()] == [noted.quarantined, None]
        await master.note_quarantine("transport-1", None)
        await master.note_quarantine("transport-1", "again")
        await master.renew_agent(noted, replace(noted, incarnation="b"))
        assert [entry.quarantined for entry in await master.agents()] == [None, None]

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
