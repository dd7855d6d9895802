"""Agents that stay away: their jobs go elsewhere, where that is wished, and their copies count no more."""

from typing import Any, Self

import pytest

from jobmaster.contracts.entries import AgentEntry, AgentState
from jobmaster.contracts.values import Control, ControlKind, SettleAnswer, StoreMode
from jobmaster.coordination.delivery import DISPATCH_US
from jobmaster.coordination.reconciler import Reconciler
from jobmaster.coordination.redispatch import HEARD_SECONDS, Redispatcher
from jobmaster.coordination.watch import Watch
from jobmaster.model.errors import JobMasterError
from jobmaster.model.job import Job
from jobmaster.model.policy import Policy
from jobmaster.model.states import JobState
from jobmaster.topology import Topology
from tests.unit.coordination.world import SECOND, TTL_US, World, until_idle

pytestmark = pytest.mark.asyncio

AFTER = 60.0


class Away(World):
    """Both agents are known to the master, and `one` may be given up."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for name in self.agents:
            incarnation = (await self.agents[name].probe()).incarnation
            await self.master.enter_agent(AgentEntry(name=name, kind="m", fingerprint=name, incarnation=incarnation))
        self.redispatcher = Redispatcher(self.master, self.agents, {"one": AFTER}, self.clock, "me")
        return self

    async def placed(self, **fields: Any) -> Job:
        """A job that the master has handed to agent `one`."""
        job = self.job(agent="one", state=JobState.HELD, epoch=0, **fields)
        await self.hold(job)
        await self.place()
        return job

    async def place(self) -> None:
        await Watch(self.master, self.agents).run()
        await self.handoff().run()
        for name, delivery in self.deliveries.items():
            if not self.switches[name].away:
                await delivery.run()

    async def state(self) -> AgentState:
        entries: list[AgentEntry] = await self.master.agents()
        return entries[0].state

    async def stays_away(self, seconds: float = AFTER + 1) -> None:
        self.switches["one"].away = True
        await self.redispatcher.run()
        self.clock.advance(seconds)
        await self.redispatcher.run()
        self.clock.advance(HEARD_SECONDS)


async def test_jobs_of_an_agent_that_stays_away_run_elsewhere_and_its_own_copies_count_no_more() -> None:
    async with Away() as world:
        waits, runs = await world.placed(), await world.placed()
        held = {job.id: job for job in await world.claim(limit=2)}
        await world.agent.release([])
        await world.stays_away(AFTER - 1)
        assert await world.state() is AgentState.OPEN
        await world.stays_away()
        assert await world.state() is AgentState.AWAY
        await world.redispatcher.run()
        assert [job.state for job in await world.master.get([waits.id, runs.id])] == [JobState.HELD] * 2
        await world.place()
        elsewhere = await world.agents["two"].claim("w2", {"default": 5}, frozenset({"work"}), 5, TTL_US)
        assert {(job.id, job.epoch) for job in elsewhere} == {(waits.id, 2), (runs.id, 2)}

        # It is back: closed first, then reconciled, and none of its copies is left.
        world.switches["one"].away = False
        await world.redispatcher.run()
        assert (await world.state(), (await world.agent.probe()).mode) == (AgentState.OPEN, StoreMode.QUARANTINED)
        await Reconciler(world.master, world.agent).run()
        assert (await world.agent.probe()).mode is StoreMode.OPEN
        assert await world.claim() == []
        late = await world.agent.settle([world.settlement(held[waits.id]), world.settlement(held[runs.id])])
        assert SettleAnswer.ACCEPTED not in late
        await world.agents["two"].settle([world.settlement(job) for job in elsewhere])
        for name in ("one", "two"):
            await world.master.apply(name, await world.agents[name].changes(10))
        for job in await world.master.get([waits.id, runs.id]):
            assert (job.state, job.epoch, job.agent) == (JobState.SUCCEEDED, 2, "two")


async def test_what_it_had_done_before_anybody_heard_of_it_does_not_replace_what_came_of_the_other_copy() -> None:
    async with Away() as world:
        job = await world.placed()
        [claimed] = await world.claim()
        await world.agent.settle([world.settlement(claimed)])
        await world.stays_away()
        await world.redispatcher.run()
        await world.place()
        world.switches["one"].away = False
        await world.master.apply("one", await world.agent.changes(10))
        known = await world.known(job.id)
        assert known is not None
        assert (known.state, known.epoch, known.agent) == (JobState.QUEUED, 2, "two")


async def test_jobs_that_may_not_run_twice_stay_and_those_being_handed_over_wait_for_their_dispatcher() -> None:
    async with Away() as world:
        once = await world.placed(policy=Policy(at_most_once=True).encode())
        world.switches["one"].away = True
        under_way = world.held(agent="one")
        await world.hold(under_way)
        await world.handoff().run()
        await world.stays_away()
        await world.redispatcher.run()
        assert (await world.known(under_way.id)).state is JobState.DISPATCHING  # type: ignore[union-attr]
        world.clock.advance(DISPATCH_US / SECOND + 1)
        await world.redispatcher.run()
        assert (await world.known(under_way.id)).state is JobState.HELD  # type: ignore[union-attr]
        assert (await world.known(once.id)).state is JobState.QUEUED  # type: ignore[union-attr]


async def test_an_agent_is_not_given_up_while_a_worker_reaches_it_or_there_is_no_other_or_it_is_paused() -> None:
    async with Away() as world:
        world.switches["one"].away = True
        await world.redispatcher.run()
        world.clock.advance(AFTER + 1)
        await world.master.beat("one", world.card("work"))
        await world.redispatcher.run()
        assert await world.state() is AgentState.OPEN
        world.clock.advance(AFTER + 1)
        await world.master.turn_agent("two", AgentState.DRAINING, None, "ann")
        await world.redispatcher.run()
        assert await world.state() is AgentState.OPEN
        await world.master.turn_agent("two", AgentState.OPEN, None, "ann")
        await world.master.turn_agent("one", AgentState.PAUSED, None, "ann")
        await world.redispatcher.run()
        assert await world.state() is AgentState.PAUSED
        await world.master.turn_agent("one", AgentState.OPEN, None, "ann")
        # One answer, and it begins anew.
        world.switches["one"].away = False
        await world.redispatcher.run()
        await world.stays_away(AFTER / 2)
        assert await world.state() is AgentState.OPEN
        await world.stays_away()
        assert await world.state() is AgentState.AWAY


async def test_one_that_was_given_up_is_taken_back_by_nobody_but_the_reconciliation() -> None:
    async with Away() as world:
        await world.stays_away()
        world.switches["one"].away = False
        topology = Topology(world.master, world.agents, 600 * SECOND, 15 * SECOND)
        for verb in (topology.pause, topology.resume):
            with pytest.raises(JobMasterError, match="stayed away and its jobs are elsewhere"):
                await verb("one")
        with pytest.raises(JobMasterError, match="an agent that stays"):
            await topology.drain("two", to="one")
        # Who closed it and died before he could tell is followed by another.
        await world.agent.control(Control(ControlKind.QUARANTINE))
        await until_idle(world.redispatcher.run)
        assert (await topology.agent("one")).state is AgentState.OPEN


async def test_nobody_hands_a_job_back_to_an_agent_that_was_given_up() -> None:
    async with Away() as world:
        waits = await world.placed()
        # Who hands over has not looked since.
        await world.stays_away()
        world.clock.advance(-HEARD_SECONDS / 2)
        await world.redispatcher.run()
        assert (await world.known(waits.id)).state is JobState.QUEUED  # type: ignore[union-attr]
        world.clock.advance(HEARD_SECONDS)
        await world.redispatcher.run()
        assert (await world.known(waits.id)).state is JobState.HELD  # type: ignore[union-attr]
