"""The planner: one job per tick, whatever happens around it."""

from collections.abc import Sequence

import pytest

from jobmaster.contracts.scheduling import ScheduleState, Soonest, TickState
from jobmaster.coordination.planner import TERM_SECONDS
from jobmaster.model.ids import occurrence_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from jobmaster.model.terms import Misfire, Overlap, Terms
from tests.unit.coordination.world import SECOND, World, until_idle


async def jobs_on(world: World, agent: str = "one") -> list[str]:
    page = await world.agents[agent].jobs("", "ffffffff-ffff-ffff-ffff-ffffffffffff", 100)
    return [job.id for job in page]


async def claimed(world: World) -> Job:
    await world.agent.promote(10)
    (job,) = await world.claim()
    return job


@pytest.mark.asyncio
async def test_it_sleeps_exactly_until_the_next_tick_and_then_plans_it() -> None:
    async with World() as world:
        rule = await world.schedule(every=60, agent="one", terms=Terms(overlap=Overlap.SKIP))
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
async def test_ticks_go_to_agents_that_serve_their_lane() -> None:
    async with World({"mails": ("two",)}) as world:
        for key, lane, agent in (("mails", "mails", None), ("pinned", "mails", "one"), ("others", "default", None)):
            await world.schedule(key, every=1, lane=lane, agent=agent)
        world.clock.advance(10)
        await until_idle(world.planner(ahead=10).run)
        went: dict[str, set[str | None]] = {}
        for key in ("mails", "pinned", "others"):
            jobs = [await world.known(occurrence_id(key, tick_us)) for tick_us in await world.ticks(key)]
            went[key] = {job.agent for job in jobs if job is not None}
        assert went == {"mails": {"two"}, "pinned": {"one"}, "others": {"one", "two"}}


@pytest.mark.asyncio
async def test_a_tick_that_may_overlap_waits_on_its_agent_before_its_time() -> None:
    async with World() as world:
        rule = await world.schedule(every=3_600, agent="one")
        planner = world.planner(ahead=60)
        world.clock.advance(3_600 - 61)
        await planner.run()
        assert await world.ticks() == []
        world.clock.advance(1)
        await planner.run()
        assert await world.ticks() == [rule.next_us]


@pytest.mark.asyncio
async def test_a_close_rhythm_is_planned_few_ticks_ahead_and_gaplessly() -> None:
    async with World() as world:
        rule = await world.schedule(every=1, agent="one")
        planner = world.planner(ahead=60)
        for second in range(1, 61):
            world.clock.advance(1)
            await planner.run()
            ticks = await world.ticks()
            assert ticks == sorted(set(ticks), reverse=True)
            assert second <= len(ticks) <= second + 30
        assert (await world.ticks())[-1] == rule.next_us
        assert world.master.calls.count("plan") < 10


@pytest.mark.asyncio
async def test_after_a_downtime_only_the_latest_missed_tick_runs() -> None:
    async with World() as world:
        rule = await world.schedule(every=60, agent="one")
        world.clock.advance(60 * 10 + 30)
        await until_idle(world.planner().run)
        await until_idle(world.deliveries["one"].run)
        latest = rule.next_us + 9 * 60 * SECOND
        assert await jobs_on(world) == [occurrence_id("tick", latest)]
        assert len(await world.ticks(state=TickState.SKIPPED)) == 9
        (stored,) = await world.master.schedules()
        assert stored.next_us == latest + 60 * SECOND


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("misfire", "most", "runs"), [(Misfire.SKIP, 1, 0), (Misfire.LATEST, 1, 1), (Misfire.ALL, 4, 4)]
)
@pytest.mark.parametrize("overlap", [*Overlap])
async def test_ten_minutes_of_downtime_under_every_policy(
    misfire: Misfire, most: int, runs: int, overlap: Overlap
) -> None:
    """Each minute: ten ticks are missed, then five come in time. Every one of them is accounted for, once."""
    async with World() as world:
        terms = Terms(misfire=misfire, most=most, overlap=overlap)
        rule = await world.schedule(every=60, agent="one", terms=terms)
        world.clock.advance(60 * 10 + 30)
        planner = world.planner()
        seen: list[str] = []
        while world.clock.wall_us() < rule.next_us + 15 * 60 * SECOND:
            await planner.run()
            await until_idle(world.deliveries["one"].run)
            await world.agent.promote(100)
            for job in await world.claim():
                seen.append(job.id)
                await world.agent.settle([world.settlement(job)])
            world.clock.advance(0.5)
        ticks = [rule.next_us + number * 60 * SECOND for number in range(15)]
        missed, timely = ticks[:10], ticks[10:]
        run = missed[10 - runs :] + timely if runs else timely
        if overlap is Overlap.CANCEL_PREVIOUS and runs:
            # Of several at once the last one is what counts.
            run = [missed[-1], *timely]
        if overlap is Overlap.QUEUE and misfire is Misfire.ALL:
            assert run == sorted(run)
        assert seen == [occurrence_id("tick", tick) for tick in run]
        assert sorted(await world.ticks(state=TickState.SKIPPED)) == sorted(set(ticks) - set(run))


@pytest.mark.asyncio
async def test_two_planners_make_one_job_of_a_tick() -> None:
    async with World() as world:
        rule = await world.schedule(every=60, agent="one")
        first, second = world.planner(), world.planner()
        world.clock.advance(60)
        await first.run()
        await second.run()
        assert len(world.deliveries["one"]._offered) == 1
        assert await world.ticks() == [rule.next_us]


@pytest.mark.asyncio
async def test_a_hundred_ticks_are_a_hundred_jobs() -> None:
    async with World() as world:
        await world.schedule(every=1, agent="one")
        planner = world.planner()
        for _ in range(100):
            world.clock.advance(1)
            await until_idle(planner.run)
        assert len(await world.ticks()) == 100


@pytest.mark.asyncio
async def test_an_ended_schedule_ticks_no_more() -> None:
    async with World() as world:
        await world.schedule(every=1, agent="one")
        assert await world.master.turn_schedule("tick", ScheduleState.ENDED)
        world.clock.advance(5)
        assert await world.planner().run() == 2.0
        assert await world.ticks() == []


@pytest.mark.asyncio
async def test_a_schedule_for_an_agent_not_served_here_neither_ticks_nor_spins() -> None:
    async with World() as world:
        await world.schedule(every=1, agent="elsewhere")
        world.clock.advance(5)
        assert await world.planner().run() == 2.0
        assert await world.ticks() == []


@pytest.mark.asyncio
async def test_an_agent_that_is_away_does_not_hold_up_the_tick() -> None:
    async with World() as world:
        await world.schedule(every=60, agent="one")
        planner = world.planner()
        world.switches["one"].away = True
        world.clock.advance(60)
        await until_idle(planner.run)
        (tick_us,) = await world.ticks()
        job = await world.known(occurrence_id("tick", tick_us))
        assert job is not None
        assert job.state is JobState.DISPATCHING
        world.switches["one"].away = False
        await until_idle(world.deliveries["one"].run)
        assert await jobs_on(world) == [job.id]


@pytest.mark.asyncio
async def test_a_clock_that_was_set_pauses_planning_for_a_lease_and_fires_nothing_meanwhile() -> None:
    async with World() as world:
        await world.schedule(every=60, agent="one")
        planner = world.planner()
        await planner.run()
        world.clock.jump_wall(3_600)
        assert await planner.run() == pytest.approx(15)
        assert await world.ticks() == []
        world.clock.jump_wall(-3_600)
        assert await planner.run() == pytest.approx(15)
        world.clock.advance(15)
        assert await planner.run() > 0
        assert await world.ticks() == []
        world.clock.advance(45)
        await until_idle(planner.run)
        assert len(await world.ticks()) == 1


@pytest.mark.asyncio
async def test_a_slow_job_makes_skipped_occurrences_and_no_failed_job() -> None:
    async with World() as world:
        await world.schedule(every=10, agent="one", terms=Terms(overlap=Overlap.SKIP))
        planner = world.planner()
        world.clock.advance(10)
        await until_idle(planner.run)
        await until_idle(world.deliveries["one"].run)
        slow = await claimed(world)
        for _ in range(3):
            world.clock.advance(10)
            await until_idle(planner.run)
        assert (len(await world.ticks()), len(await world.ticks(state=TickState.SKIPPED))) == (1, 3)
        await world.agent.settle([world.settlement(slow)])
        # Its end is in the agent's outbox only: the planner asks there.
        world.clock.advance(10)
        await until_idle(planner.run)
        assert len(await world.ticks()) == 2


@pytest.mark.asyncio
async def test_a_queued_tick_starts_when_the_one_before_has_ended() -> None:
    async with World() as world:
        rule = await world.schedule(every=10, agent="one", terms=Terms(overlap=Overlap.QUEUE))
        planner = world.planner()
        world.clock.advance(10)
        await until_idle(planner.run)
        await until_idle(world.deliveries["one"].run)
        slow = await claimed(world)
        world.clock.advance(12)
        assert 0 < await until_idle(planner.run) <= 0.51
        assert await world.ticks() == [rule.next_us]
        await world.agent.settle([world.settlement(slow, RunOutcome.FAILED)])
        world.clock.advance(0.6)
        await until_idle(planner.run)
        assert await world.ticks() == [rule.next_us + 10 * SECOND, rule.next_us]


@pytest.mark.asyncio
async def test_cancel_previous_fences_the_job_before() -> None:
    async with World() as world:
        await world.schedule(every=10, agent="one", terms=Terms(overlap=Overlap.CANCEL_PREVIOUS))
        planner = world.planner()
        world.clock.advance(10)
        await until_idle(planner.run)
        await until_idle(world.deliveries["one"].run)
        slow = await claimed(world)
        world.clock.advance(10)
        await until_idle(planner.run)
        assert len(await world.ticks()) == 2
        (now,) = await world.agent.find([slow.id])
        assert now is not None
        assert now.state is JobState.CANCELLED
        (answer,) = await world.agent.settle([world.settlement(slow)])
        assert answer == "stale"


@pytest.mark.asyncio
async def test_a_job_that_cannot_be_cancelled_is_not_joined_by_the_next() -> None:
    async with World() as world:
        await world.schedule(every=10, agent="one", terms=Terms(overlap=Overlap.CANCEL_PREVIOUS))
        planner = world.planner()
        world.clock.advance(10)
        await until_idle(planner.run)
        await until_idle(world.deliveries["one"].run)
        await claimed(world)
        world.switches["one"].away = True
        world.clock.advance(10)
        assert 0 < await until_idle(planner.run) <= 0.51
        assert len(await world.ticks()) == 1


@pytest.mark.asyncio
async def test_the_others_follow_a_leader_until_its_term_runs_out() -> None:
    async with World() as world:
        await world.schedule(every=1, agent="one")
        leader, follower = world.planner(node="node-1"), world.planner(node="node-2")
        world.clock.advance(1)
        await until_idle(leader.run)
        world.clock.advance(1)
        assert 0 < await follower.run() <= 2.0
        assert len(await world.ticks()) == 1
        # The leader ends without a word.
        world.clock.advance(TERM_SECONDS)
        await until_idle(follower.run)
        assert len(await world.ticks()) == 2 + TERM_SECONDS


@pytest.mark.asyncio
async def test_a_leader_that_stops_leaves_at_once() -> None:
    async with World() as world:
        await world.schedule(every=1, agent="one")
        leader, follower = world.planner(node="node-1"), world.planner(node="node-2")
        world.clock.advance(1)
        await until_idle(leader.run)
        await leader.close()
        await follower.close()
        world.clock.advance(1)
        await until_idle(follower.run)
        assert len(await world.ticks()) == 2


@pytest.mark.asyncio
async def test_a_store_that_answers_slowly_is_not_taken_for_a_clock_that_was_set() -> None:
    async with World() as world:
        await world.schedule(every=10, agent="one")
        planner = world.planner()
        await planner.run()
        asked = world.master.soonest

        async def slowly(agents: Sequence[str]) -> Soonest:
            answer: Soonest = await asked(agents)
            world.clock.advance(20)
            return answer

        world.master.soonest = slowly
        await planner.run()
        world.master.soonest = asked
        await until_idle(planner.run)
        assert len(await world.ticks()) == 2
