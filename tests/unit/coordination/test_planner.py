"""The planner: one job per tick, whatever happens around it."""

import pytest

from jobmaster.model.ids import occurrence_id
from jobmaster.model.states import JobState
from tests.unit.coordination.world import SECOND, World, until_idle


async def jobs_on(world: World, agent: str = "one") -> list[str]:
    page = await world.agents[agent].jobs("", "ffffffff-ffff-ffff-ffff-ffffffffffff", 100)
    return [job.id for job in page]


@pytest.mark.asyncio
async def test_it_sleeps_exactly_until_the_next_tick_and_then_plans_it() -> None:
    async with World() as world:
        rule = world.schedule(every=60, agent="one")
        await world.master.save_schedule(rule)
        planner = world.planner()
        assert await planner.run() == 2.0
        world.clock.advance(59.7)
        assert await planner.run() == pytest.approx(0.301)
        world.clock.advance(0.3)
        await until_idle(planner.run)
        await until_idle(world.deliveries["one"].run)
        assert await jobs_on(world) == [occurrence_id("tick", rule.next_us)]
        job = await world.known(occurrence_id("tick", rule.next_us))
        assert job is not None
        assert (job.state, job.due_us, job.schedule) == (JobState.QUEUED, rule.next_us, "tick")


@pytest.mark.asyncio
async def test_after_a_downtime_only_the_latest_missed_tick_runs() -> None:
    async with World() as world:
        rule = world.schedule(every=60, agent="one")
        await world.master.save_schedule(rule)
        world.clock.advance(60 * 10 + 30)
        await until_idle(world.planner().run)
        await until_idle(world.deliveries["one"].run)
        latest = rule.next_us + 9 * 60 * SECOND
        assert await jobs_on(world) == [occurrence_id("tick", latest)]
        (stored,) = await world.master.schedules()
        assert stored.next_us == latest + 60 * SECOND


@pytest.mark.asyncio
async def test_two_planners_make_one_job_of_a_tick() -> None:
    async with World() as world:
        rule = world.schedule(every=60, agent="one")
        await world.master.save_schedule(rule)
        first, second = world.planner(), world.planner()
        world.clock.advance(60)
        # Both have read the schedule before either writes.
        read = await world.master.due_schedules(world.clock.wall_us(), 10)
        decided = [
            [await planner._decide(schedule, world.clock.wall_us()) for schedule in read] for planner in (first, second)
        ]
        for planner, occurrences in zip((first, second), decided, strict=True):
            await planner._plan([made for made in occurrences if made is not None])
        assert len(world.deliveries["one"]._offered) == 1
        assert [tick for tick, _ in await world.master.ticks("tick", 10)] == [rule.next_us]


@pytest.mark.asyncio
async def test_a_hundred_ticks_are_a_hundred_jobs() -> None:
    async with World() as world:
        await world.master.save_schedule(world.schedule(every=1, agent="one"))
        planner = world.planner()
        for _ in range(100):
            world.clock.advance(1)
            await until_idle(planner.run)
        assert len(await world.master.ticks("tick", 1_000)) == 100


@pytest.mark.asyncio
async def test_an_ended_schedule_ticks_no_more() -> None:
    async with World() as world:
        await world.master.save_schedule(world.schedule(every=1, agent="one"))
        assert await world.master.end_schedule("tick")
        world.clock.advance(5)
        assert await world.planner().run() == 2.0
        assert await world.master.ticks("tick", 10) == []


@pytest.mark.asyncio
async def test_a_schedule_for_an_agent_not_served_here_neither_ticks_nor_spins() -> None:
    async with World() as world:
        await world.master.save_schedule(world.schedule(every=1, agent="elsewhere"))
        world.clock.advance(5)
        assert await world.planner().run() == 2.0
        assert await world.master.ticks("tick", 10) == []


@pytest.mark.asyncio
async def test_an_agent_that_is_away_does_not_hold_up_the_tick() -> None:
    async with World() as world:
        await world.master.save_schedule(world.schedule(every=60, agent="one"))
        planner = world.planner()
        world.switches["one"].away = True
        world.clock.advance(60)
        await until_idle(planner.run)
        ((_, job_id),) = await world.master.ticks("tick", 10)
        job = await world.known(job_id)
        assert job is not None
        assert job.state is JobState.DISPATCHING
        world.switches["one"].away = False
        await until_idle(world.deliveries["one"].run)
        assert await jobs_on(world) == [job_id]


@pytest.mark.asyncio
async def test_a_clock_that_was_set_pauses_planning_for_a_lease_and_fires_nothing_meanwhile() -> None:
    async with World() as world:
        await world.master.save_schedule(world.schedule(every=60, agent="one"))
        planner = world.planner()
        await planner.run()
        world.clock.jump_wall(3_600)
        assert await planner.run() == pytest.approx(15)
        assert await world.master.ticks("tick", 10) == []
        world.clock.jump_wall(-3_600)
        assert await planner.run() == pytest.approx(15)
        world.clock.advance(15)
        assert await planner.run() > 0
        assert await world.master.ticks("tick", 10) == []
        world.clock.advance(45)
        await until_idle(planner.run)
        assert len(await world.master.ticks("tick", 10)) == 1
