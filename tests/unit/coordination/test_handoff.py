"""The hand-off: from held on the master to queued on an agent, whoever fails in between."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import msgspec
import pytest

from jobmaster.contracts.values import PutAnswer
from jobmaster.coordination.delivery import OVERDUE_SECONDS, Delivery, deliver
from jobmaster.model.errors import AgentUnreachable, MasterUnavailable
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from tests.unit.coordination.world import World, until_idle


@pytest.mark.asyncio
async def test_a_job_due_within_the_threshold_is_handed_off_and_a_later_one_stays() -> None:
    async with World() as world:
        near, far = world.held(due_in=599), world.held(due_in=601)
        await world.hold(near, far)
        await until_idle(world.handoff().run)
        for delivery in world.deliveries.values():
            await until_idle(delivery.run)
        there = await world.known(near.id)
        assert there is not None
        assert (there.state, there.epoch) == (JobState.QUEUED, 1)
        assert there.agent is not None
        (on_agent,) = await world.agents[there.agent].find([near.id])
        assert on_agent is not None
        assert (on_agent.state, on_agent.epoch, on_agent.version) == (JobState.QUEUED, 1, there.version)
        still = await world.known(far.id)
        assert still is not None
        assert still.state is JobState.HELD


@pytest.mark.asyncio
async def test_a_batch_goes_to_its_agent_in_one_put(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        await world.hold(*(world.held(agent="one") for _ in range(40)))
        # As real clocks do: it is later each time one looks.
        ticks = count(world.clock.wall_us())

        async def later() -> int:
            return next(ticks)

        monkeypatch.setattr(world.agents.time("one"), "fresh_us", later)
        await until_idle(world.handoff().run)
        sizes: list[int] = []
        put = world.agents["one"].put

        async def noting(jobs: Sequence[Job], deadline_us: int) -> list[PutAnswer]:
            sizes.append(len(jobs))
            return await put(jobs, deadline_us)

        agent: Any = world.agents["one"]
        monkeypatch.setattr(agent, "put", noting)
        await until_idle(world.deliveries["one"].run)
        assert sizes == [40]


@pytest.mark.asyncio
async def test_an_explicit_agent_is_kept_and_one_not_served_here_blocks_nobody() -> None:
    async with World() as world:
        foreign = [world.held(agent="elsewhere") for _ in range(3)]
        mine = world.held(due_in=1, agent="two")
        await world.hold(*foreign, mine)
        handoff = world.handoff()
        handoff._limit = 2
        while await world.known(mine.id) == mine:
            await handoff.run()
        await until_idle(world.deliveries["two"].run)
        (there,) = await world.agents["two"].find([mine.id])
        assert there is not None
        for job in foreign:
            assert await world.known(job.id) == job


@pytest.mark.asyncio
async def test_a_held_job_goes_to_an_agent_that_serves_its_lane() -> None:
    async with World({"mails": ("two",)}) as world:
        mails, others = [
            [msgspec.structs.replace(world.held(), lane=lane) for _ in range(8)] for lane in ("mails", "default")
        ]
        await world.hold(*mails, *others)
        await until_idle(world.handoff().run)
        assert {(await world.known(job.id)).agent for job in mails} == {"two"}  # type: ignore[union-attr]  # it is held
        assert {(await world.known(job.id)).agent for job in others} == {"one", "two"}  # type: ignore[union-attr]


@pytest.mark.asyncio
async def test_an_agent_that_is_away_delays_its_own_jobs_only() -> None:
    async with World() as world:
        to_one, to_two = world.held(agent="one"), world.held(agent="two")
        await world.hold(to_one, to_two)
        world.switches["one"].away = True
        await until_idle(world.handoff().run)
        with pytest.raises(AgentUnreachable):
            await world.deliveries["one"].run()
        await until_idle(world.deliveries["two"].run)
        other = await world.known(to_two.id)
        assert other is not None
        assert other.state is JobState.QUEUED
        waiting = await world.known(to_one.id)
        assert waiting is not None
        assert waiting.state is JobState.DISPATCHING
        world.switches["one"].away = False
        await until_idle(world.deliveries["one"].run)
        (there,) = await world.agents["one"].find([to_one.id])
        assert there is not None
        assert there.epoch == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("lost_at", ["put", "dispatched"])
async def test_an_answer_that_was_lost_is_made_good_by_repeating(lost_at: str) -> None:
    async with World() as world:
        job = world.held(agent="one")
        await world.hold(job)
        await until_idle(world.handoff().run)
        (world.switches["one"] if lost_at == "put" else world.master).lost.add(lost_at)
        with pytest.raises((AgentUnreachable, MasterUnavailable)):
            await world.deliveries["one"].run()
        await until_idle(world.deliveries["one"].run)
        there = await world.known(job.id)
        assert there is not None
        assert there.state is JobState.QUEUED
        assert sum(lane.ready for lane in await world.agent.stats()) == 1


@pytest.mark.asyncio
async def test_a_hand_off_whose_dispatcher_died_is_taken_over_with_the_same_epoch_and_agent() -> None:
    async with World() as world:
        job = world.held(agent="one")
        await world.hold(job)
        await until_idle(world.handoff().run)
        delivery = Delivery(world.master, world.agents["one"], world.clock)
        await until_idle(delivery.run)
        waiting = await world.known(job.id)
        assert waiting is not None
        assert waiting.state is JobState.DISPATCHING
        world.clock.advance(31)
        await until_idle(delivery.run)
        there = await world.known(job.id)
        assert there is not None
        assert (there.state, there.epoch, there.agent) == (JobState.QUEUED, 1, "one")


@pytest.mark.asyncio
async def test_a_put_past_its_deadline_takes_the_job_back_and_the_next_epoch_gets_through() -> None:
    async with World() as world:
        job = world.held(agent="one")
        await world.hold(job)
        await until_idle(world.handoff().run)
        world.switches["one"].away = True
        with pytest.raises(AgentUnreachable):
            await world.deliveries["one"].run()
        world.clock.advance(11 * 60)
        world.switches["one"].away = False
        # Its own time is over too, so it is found as overdue, put too late and taken back.
        await until_idle(world.deliveries["one"].run)
        records = await world.agent.changes(10)
        await world.master.apply("one", records)
        await world.agent.confirm([record.seq for record in records])
        back = await world.known(job.id)
        assert back is not None
        assert back.state is JobState.HELD
        await until_idle(world.handoff().run)
        await until_idle(world.deliveries["one"].run)
        (there,) = await world.agent.find([job.id])
        assert there is not None
        assert there.epoch == 2


@pytest.mark.asyncio
async def test_a_job_that_ended_meanwhile_is_not_placed_again() -> None:
    async with World() as world:
        job = world.held(agent="one")
        await world.hold(job)
        await until_idle(world.handoff().run)
        (placement,) = list(world.deliveries["one"]._offered)
        await until_idle(world.deliveries["one"].run)
        (claimed,) = await world.claim()
        await world.agent.settle([world.settlement(claimed)])
        await deliver(world.master, world.agent, [placement])
        assert sum(lane.ready + lane.leased for lane in await world.agent.stats()) == 0


@pytest.mark.asyncio
async def test_overdue_ones_are_looked_for_seldom() -> None:
    async with World() as world:
        delivery = world.deliveries["one"]
        await until_idle(delivery.run)
        world.master.calls.clear()
        world.clock.advance(OVERDUE_SECONDS - 0.1)
        assert await delivery.run() == pytest.approx(0.1)
        assert world.master.calls == []
        world.clock.advance(0.1)
        await delivery.run()
        assert world.master.calls == ["overdue"]
