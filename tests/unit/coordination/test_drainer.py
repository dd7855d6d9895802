"""Draining: what has not started on an agent goes to others, each job once, whoever does it and however often."""

from typing import Self

import pytest

from jobmaster.contracts.entries import AgentEntry, AgentState, Dispatch
from jobmaster.contracts.values import PUT_WINDOW_US, Control, ControlKind, StoreMode
from jobmaster.coordination.drainer import Drainer
from jobmaster.coordination.handoff import HandOff
from jobmaster.coordination.watch import Watch
from jobmaster.model.errors import JobMasterError, NameInvalid, OptionInvalid, Refused
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.topology import Topology
from tests.unit.coordination.world import THRESHOLD_US, World, until_idle

pytestmark = pytest.mark.asyncio


class Leaving(World):
    """Both agents are known to the master; `one` may leave."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        for name in self.agents:
            await self.master.enter_agent(AgentEntry(name=name, kind="memory", fingerprint=name, incarnation=name))
        self.topology = Topology(self.master, self.agents, THRESHOLD_US, 15_000_000)
        self.handing_off: HandOff = self.handoff()
        for name, delivery in self.deliveries.items():
            delivery._leaving = lambda name=name: name in self.agents.leaving  # type: ignore[misc]
        return self

    async def go_on(self) -> None:
        """What coordinators do, in an order as good as any."""
        await Watch(self.master, self.agents).run()
        await until_idle(Drainer(self.master, self.agent, THRESHOLD_US, "test").run)
        self.clock.advance(6)
        syncer = self.syncer()
        while await syncer.sync():
            continue
        await until_idle(self.handing_off.run)
        for delivery in self.deliveries.values():
            await until_idle(delivery.run)

    async def until_drained(self) -> None:
        for _ in range(10):
            await self.go_on()
            if (await self.topology.agent("one")).state is AgentState.DRAINED:
                return
        raise AssertionError(await self.topology.agent("one"))

    async def at(self, name: str) -> dict[str, Job]:
        page = await self.agents[name].jobs("", "ffffffff-ffff-ffff-ffff-ffffffffffff", 1_000)
        return {job.id: job for job in page}


async def test_what_waits_moves_and_what_runs_ends_where_it_is() -> None:
    async with Leaving() as world:
        ready, late = world.job(agent="one"), world.job(agent="one", due_in=300)
        running = world.job(agent="one")
        await world.put(running)
        (leased,) = await world.claim()
        await world.put(ready, late)
        await world.topology.drain("one", who="ann")
        for _ in range(3):
            await world.go_on()
        standing = await world.topology.agent("one")
        assert (standing.state, standing.waiting, standing.running) == (AgentState.DRAINING, 0, 1)
        moved = await world.at("two")
        assert moved.keys() == {ready.id, late.id}
        assert {job.epoch for job in moved.values()} == {2}
        assert moved[late.id].due_us == late.due_us
        assert await world.claim() == []
        await world.agent.settle([world.settlement(leased)])
        await world.until_drained()
        ended = await world.known(running.id)
        assert ended is not None
        assert ended.state is JobState.SUCCEEDED
        assert [event.kind for event in await world.topology.history("one")] == ["agent.drained", "agent.draining"]
        assert (await world.topology.history("one"))[1].who == "ann"


async def test_what_was_on_its_way_there_goes_elsewhere() -> None:
    async with Leaving() as world:
        # Held for it, handed to it and not delivered, and believed to be there though it never came.
        held, half, lost = world.held(agent="one"), world.held(agent="one"), world.held(agent="one")
        await world.hold(held, half, lost)
        moves = [Dispatch(job.id, job.version, "one", world.clock.wall_us() + PUT_WINDOW_US) for job in (half, lost)]
        await world.master.dispatch(moves)
        await world.master.dispatched([(lost.id, 1)])
        await world.topology.drain("one", to="two")
        await world.until_drained()
        moved = await world.at("two")
        assert moved.keys() == {held.id, half.id, lost.id}
        assert await world.at("one") == {}


async def test_a_delivery_under_way_when_the_drain_begins_is_taken_back() -> None:
    async with Leaving() as world:
        job = world.held(agent="one")
        await world.hold(job)
        await until_idle(world.handing_off.run)
        known = await world.known(job.id)
        assert known is not None
        assert known.state is JobState.DISPATCHING
        await world.topology.drain("one")
        await world.until_drained()
        assert (await world.at("two"))[job.id].epoch == 2


async def test_a_job_put_at_the_last_moment_moves_though_the_agent_is_drained() -> None:
    async with Leaving() as world:
        await world.topology.drain("one")
        await world.until_drained()
        await world.agent.control(Control(ControlKind.RESUME))
        job = world.job(agent="one")
        await world.put(job)
        for _ in range(3):
            await world.go_on()
        assert job.id in await world.at("two")
        assert (await world.agent.control(Control(ControlKind.STATE))).mode is StoreMode.DRAINING


async def test_an_agent_taken_back_in_stays_open() -> None:
    async with Leaving() as world:
        job = world.job(agent="one")
        await world.topology.drain("one")
        await world.go_on()
        with pytest.raises(Refused, match="drain"):
            await world.put(job)
        await world.topology.resume("one")
        await world.go_on()
        await world.put(job)
        await world.go_on()
        assert job.id in await world.at("one")
        assert (await world.topology.agent("one")).state is AgentState.OPEN


async def test_a_schedule_bound_to_an_agent_that_leaves_goes_on_at_its_target() -> None:
    async with Leaving() as world:
        await world.topology.drain("one", to="two")
        await world.until_drained()
        await world.topology.decommission("one")
        await world.go_on()
        planner = world.planner()
        await planner.run()
        await world.schedule(every=60, agent="one")
        world.clock.advance(61)
        await planner.run()
        await planner.run()
        await until_idle(world.deliveries["two"].run)
        assert len(await world.at("two")) == 1


async def test_an_agent_in_quarantine_is_reconciled_before_it_is_drained() -> None:
    async with Leaving() as world:
        await world.put(world.job(agent="one"))
        await world.agent.control(Control(ControlKind.QUARANTINE))
        await world.topology.drain("one")
        await world.go_on()
        assert len(await world.at("one")) == 1
        with pytest.raises(JobMasterError, match="quarantine"):
            await world.topology.resume("one")


async def test_bad_input_is_named() -> None:
    async with Leaving() as world:
        with pytest.raises(NameInvalid, match=r"'three'.*one, two"):
            await world.topology.drain("three")
        with pytest.raises(NameInvalid, match="'three'"):
            await world.topology.drain("one", to="three")
        with pytest.raises(OptionInvalid, match="an agent that stays: two"):
            await world.topology.drain("one", to="one")
        with pytest.raises(JobMasterError, match="not drained; run `jobmaster agents drain one`"):
            await world.topology.decommission("one")
        await world.topology.drain("one")
        with pytest.raises(OptionInvalid, match="another agent besides it"):
            await world.topology.drain("two")
        with pytest.raises(JobMasterError, match="resume it first"):
            await world.topology.pause("one")
        await world.topology.pause("two")
        assert (await world.agents["two"].control(Control(ControlKind.STATE))).mode is StoreMode.PAUSED
        assert (await world.topology.agent("two")).state is AgentState.PAUSED
