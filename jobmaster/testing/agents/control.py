"""Control: pauses, draining, purging, kept by the store itself."""

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Control, ControlKind, Extension, RecordKind, SettleAnswer, StoreMode, StoreState
from jobmaster.model.errors import Refused
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import (
    HOUR_US,
    LANE,
    LONG_US,
    AgentCases,
    claim,
    claimed_new,
    here,
    ids,
    put_new,
    records,
    release,
    settle,
)
from jobmaster.testing.agents.harness import AgentStore, skip

MODES = {
    ControlKind.PAUSE: StoreMode.PAUSED,
    ControlKind.DRAIN: StoreMode.DRAINING,
    ControlKind.QUARANTINE: StoreMode.QUARANTINED,
    ControlKind.RESUME: StoreMode.OPEN,
}


class ControlCases(AgentCases):
    async def test_every_change_gives_the_state_afterwards(self, agent: AgentTransport) -> None:
        assert await agent.control(Control(ControlKind.STATE)) == StoreState(StoreMode.OPEN)
        for kind, mode in MODES.items():
            assert (await agent.control(Control(kind))).mode is mode
            assert (await agent.probe()).mode is mode
        await agent.control(Control(ControlKind.PAUSE_LANE, "b"))
        state = await agent.control(Control(ControlKind.PAUSE_LANE, "a"))
        assert state == StoreState(StoreMode.OPEN, frozenset({"a", "b"}))
        assert await agent.control(Control(ControlKind.PAUSE_LANE, "a")) == state
        state = await agent.control(Control(ControlKind.RESUME_LANE, "a"))
        assert state.paused_lanes == {"b"}

    async def test_every_handle_obeys(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent)
        other = await store.open()

        await other.control(Control(ControlKind.PAUSE))

        assert await claim(agent) == []

    async def test_control_survives_a_restart(self, store: AgentStore, agent: AgentTransport) -> None:
        if not agent.traits.restartable:
            skip("trait restartable is false: nothing is left after a restart")
        await agent.control(Control(ControlKind.DRAIN))
        await agent.control(Control(ControlKind.PAUSE_LANE, "a"))

        await store.restart()
        agent = await store.open()

        assert await agent.control(Control(ControlKind.STATE)) == StoreState(StoreMode.DRAINING, frozenset({"a"}))

    async def test_a_paused_lane_leaves_others_alone(self, agent: AgentTransport) -> None:
        await put_new(agent)
        [other] = await put_new(agent, lane="other")
        await agent.control(Control(ControlKind.PAUSE_LANE, LANE))

        claimed = await agent.claim("w1", {LANE: 5, "other": 5}, frozenset({other.handler}), 10, LONG_US)

        assert ids(claimed) == [other.id]
        assert {stats.lane: stats.paused for stats in await agent.stats()} == {LANE: True, "other": False}

    @pytest.mark.parametrize("kind", [ControlKind.PAUSE, ControlKind.DRAIN])
    async def test_what_runs_may_end_while_nothing_is_claimed(self, agent: AgentTransport, kind: ControlKind) -> None:
        first, second = await put_new(agent, 2)
        claimed = {job.id: job for job in await claim(agent)}
        await agent.control(Control(kind))

        assert await agent.extend([Extension(first.id, claimed[first.id].token)], LONG_US) == ["held"]
        assert await settle(agent, claimed[first.id]) is SettleAnswer.ACCEPTED
        assert await release(agent, claimed[second.id]) is SettleAnswer.ACCEPTED
        assert await claim(agent) == []

    async def test_purge_cancels_the_waiting_jobs_of_a_lane(self, agent: AgentTransport) -> None:
        running = await claimed_new(agent)
        waiting = await put_new(agent, 2)
        waiting += await put_new(agent, due_us=await agent.store_now_us() + HOUR_US)
        [other] = await put_new(agent, lane="other")

        state = await agent.control(Control(ControlKind.PURGE_LANE, LANE))

        assert (state.purged, state.mode) == (3, StoreMode.OPEN)
        assert [item.id for item in await agent.inventory("", 10)] == sorted([running.id, other.id])
        written = await records(agent)
        assert sorted(record.job.id for record in written if record.job) == sorted(ids(waiting))
        assert {record.kind for record in written} == {RecordKind.EFFECT}
        assert (await here(agent, waiting[0].id)).state is JobState.CANCELLED
        assert await settle(agent, running) is SettleAnswer.ACCEPTED

    async def test_a_change_of_a_lane_must_name_it(self, agent: AgentTransport) -> None:
        for kind in (ControlKind.PAUSE_LANE, ControlKind.RESUME_LANE, ControlKind.PURGE_LANE):
            with pytest.raises(Refused, match="lane"):
                await agent.control(Control(kind))
