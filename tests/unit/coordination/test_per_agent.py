"""The duties of one agent: reaper, promoter, router, syncer, copier, heartbeat."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from jobmaster.contracts.values import JobFilter
from jobmaster.coordination.copier import Copier
from jobmaster.coordination.heartbeat import Heartbeat
from jobmaster.coordination.promoter import Promoter
from jobmaster.coordination.reaper import Reaper
from jobmaster.coordination.router import Router
from jobmaster.coordination.syncer import BATCH, LINGER_SECONDS, QUIET_SECONDS, Syncer
from jobmaster.model.errors import AgentUnreachable, MasterUnavailable
from jobmaster.model.ids import floor_id
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from tests.support import eventually
from tests.unit.coordination.world import SECOND, TTL_US, World, until_idle

EVERYTHING = JobFilter()


def reaper(world: World) -> Reaper:
    return Reaper(world.agent, world.agents.time("one"), world.clock, 15, 2.5)


async def leased(world: World) -> int:
    return sum(lane.leased for lane in await world.agent.stats())


async def pass_time(world: World, duty: Reaper, seconds: float) -> None:
    """Let time pass as a running reaper sees it: a pass a second."""
    for _ in range(round(seconds)):
        world.clock.advance(1)
        await duty.run()


@pytest.mark.asyncio
async def test_a_reaper_ends_an_expired_lease_and_its_job_is_ready_again() -> None:
    async with World() as world:
        duty = reaper(world)
        await pass_time(world, duty, 18)
        await world.put(world.job())
        await world.claim()
        await pass_time(world, duty, 14)
        assert await leased(world) == 1
        await pass_time(world, duty, 2)
        assert await leased(world) == 0
        (again,) = await world.claim()
        assert again.suspect


@pytest.mark.asyncio
async def test_a_reaper_that_connected_newly_waits_for_a_lease_and_its_margin() -> None:
    async with World() as world:
        await world.put(world.job())
        await world.claim()
        world.clock.advance(TTL_US / SECOND + 1)
        duty = reaper(world)
        await pass_time(world, duty, 17)
        assert await leased(world) == 1
        await pass_time(world, duty, 1)
        assert await leased(world) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", ["slept", "clock set", "store away"])
async def test_a_reaper_waits_again_after_missed_passes_a_jump_or_an_outage(trouble: str) -> None:
    async with World() as world:
        duty = reaper(world)
        await pass_time(world, duty, 18)
        assert duty.trusts
        await world.put(world.job())
        await world.claim()
        match trouble:
            case "slept":
                world.clock.advance(20)
            case "clock set":
                world.clock.jump_wall(20)
            case _:
                world.switches["one"].away = True
                world.clock.advance(4)
                with pytest.raises(AgentUnreachable):
                    await duty.run()
                world.switches["one"].away = False
                world.clock.advance(4)
        await duty.run()
        waits = not duty.trusts
        assert waits
        assert await leased(world) == 1
        await pass_time(world, duty, 18)
        assert await leased(world) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [3_600, -3_600])
async def test_a_reaper_waits_when_only_the_stores_clock_was_set(seconds: float) -> None:
    async with World() as world:
        duty = reaper(world)
        await pass_time(world, duty, 18)
        assert duty.trusts
        world.switches["one"].ahead_us = round(seconds * SECOND)
        world.clock.advance(1)
        await duty.run()
        waits = not duty.trusts
        assert waits
        # The whole process goes by that clock from now on.
        assert world.agents.time("one").now_us() == world.clock.wall_us() + round(seconds * SECOND)
        await pass_time(world, duty, 18)
        assert duty.trusts


@pytest.mark.asyncio
async def test_a_reaper_tells_that_jobs_are_ready_again() -> None:
    async with World() as world:
        told: list[None] = []
        duty = Reaper(world.agent, world.agents.time("one"), world.clock, 15, 2.5, lambda: told.append(None))
        await pass_time(world, duty, 18)
        await world.put(world.job())
        await world.claim()
        await pass_time(world, duty, 14)
        assert told == []
        await pass_time(world, duty, 3)
        assert told == [None]


@pytest.mark.asyncio
async def test_a_promoter_makes_due_jobs_ready_and_sleeps_until_the_next() -> None:
    async with World() as world:
        duty = Promoter(world.agent, world.agents.time("one"))
        assert await duty.run() == 1.0
        await world.put(world.job(due_in=0.4), world.job(due_in=30))
        assert await duty.run() == pytest.approx(0.4)
        world.clock.advance(0.4)
        assert await duty.run() == 1.0
        (lane,) = await world.agent.stats()
        assert (lane.ready, lane.delayed) == (1, 1)


@pytest.mark.asyncio
async def test_a_router_sets_aside_what_no_live_worker_knows_and_says_so() -> None:
    async with World() as world:
        told: list[tuple[str, str, int]] = []
        duty = Router(world.agent, dead_after_us=15 * SECOND, on_unroutable=lambda *what: told.append(what))
        await world.put(world.job(handler="unknown", lane="mail"), world.job(handler="work"))
        await duty.run()
        assert not told, "with no worker at all nobody can judge"
        await world.agent.register(world.card("work"))
        await until_idle(duty.run)
        assert told == [("unknown", "mail", 1)]
        assert {lane.lane: lane.parked for lane in await world.agent.stats()}["mail"] == 1
        await world.agent.register(world.card("unknown", worker="w2"))
        await until_idle(duty.run)
        assert sum(lane.parked for lane in await world.agent.stats()) == 0


@pytest.mark.asyncio
async def test_what_only_a_dead_worker_knows_is_set_aside() -> None:
    async with World() as world:
        told: list[Any] = []
        duty = Router(world.agent, dead_after_us=15 * SECOND, on_unroutable=lambda *what: told.append(what))
        await world.agent.register(world.card("work", worker="dead"))
        world.clock.advance(16)
        await world.agent.register(world.card("other", worker="live"))
        await world.put(world.job(handler="work"))
        await until_idle(duty.run)
        assert told == [("work", "default", 1)]


def syncer(world: World) -> Syncer:
    return world.syncer()


@pytest.mark.asyncio
async def test_a_syncer_brings_jobs_and_runs_to_the_master_and_empties_the_outbox() -> None:
    async with World() as world:
        await world.put(*(world.job() for _ in range(3)))
        done, failed, later = await world.claim()
        await world.agent.settle(
            [
                world.settlement(done, result=b"1"),
                world.settlement(failed, RunOutcome.FAILED, reason="rejected", error="no"),
                world.settlement(later, RunOutcome.RETRY_AT, after_us=5 * SECOND, error="not yet"),
            ]
        )
        assert await until_idle(syncer(world).run) == 2.0
        assert await world.agent.changes(10) == []
        states = [job.state for job in await world.master.get([done.id, failed.id, later.id])]
        assert states == [JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED]
        assert [len(await world.master.runs(job.id)) for job in (done, failed, later)] == [1, 1, 1]


@pytest.mark.asyncio
async def test_with_the_master_away_nothing_is_lost_and_nothing_doubled_after_lost_answers() -> None:
    async with World() as world:
        await world.put(world.job())
        (job,) = await world.claim()
        await world.agent.settle([world.settlement(job)])
        duty = syncer(world)
        world.master.away = True
        with pytest.raises(MasterUnavailable):
            await duty.run()
        world.master.away = False
        world.master.lost.add("apply")
        with pytest.raises(MasterUnavailable):
            await duty.run()
        world.switches["one"].lost.add("confirm")
        with pytest.raises(AgentUnreachable):
            await duty.run()
        await duty.run()
        assert await world.agent.changes(10) == []
        assert len(await world.master.runs(job.id)) == 1


@pytest.mark.asyncio
async def test_a_full_batch_is_followed_at_once_and_an_empty_pass_by_a_pause() -> None:
    async with World() as world:
        jobs = [world.job() for _ in range(BATCH + 1)]
        await world.put(*jobs)
        claimed = await world.claim(limit=len(jobs))
        await world.agent.settle([world.settlement(job) for job in claimed])
        duty = syncer(world)
        assert await duty.run() == 0
        assert await duty.run() == 2.0
        page = await world.master.page(EVERYTHING, None, 10)
        assert len(page.jobs) == 10


@pytest.mark.asyncio
async def test_while_records_keep_coming_they_gather_and_once_none_comes_they_are_brought_over() -> None:
    async with World() as world:
        duty = world.syncer()
        assert await duty.run() == 2.0
        waited = 0.0
        while (wait := await duty.run()) < 2.0:
            assert wait <= QUIET_SECONDS
            world.clock.advance(QUIET_SECONDS / 2)
            waited += QUIET_SECONDS / 2
        assert waited == pytest.approx(LINGER_SECONDS)
        assert await duty.run() == QUIET_SECONDS
        world.clock.advance(QUIET_SECONDS)
        assert await duty.run() == 2.0


@pytest.mark.asyncio
async def test_young_records_of_another_process_are_left_to_it_for_a_while() -> None:
    async with World() as world:
        await world.put(world.job())
        (job,) = await world.claim()
        await world.agent.settle([world.settlement(job)])
        duty = world.syncer(mine="somebody-else")
        assert await duty.run() > 0
        assert await world.known(job.id) is None
        world.clock.advance(5.1)
        await duty.run()
        assert await world.known(job.id) is not None


def by_cursor(world: World) -> None:
    """Have agent `one` confirm its records up to a point only, as a stream does."""
    agent: Any = world.switches["one"]
    agent.traits = replace(world.agent.traits, confirm_by_id=False)


@pytest.mark.asyncio
async def test_of_two_processes_one_moves_the_cursor_and_the_other_goes_on_from_there() -> None:
    async with World() as world:
        by_cursor(world)
        jobs = [world.job() for _ in range(2)]
        await world.put(*jobs)
        first, second = await world.claim()
        await world.agent.settle([world.settlement(first)])
        here, there = world.syncer(mine="w1"), world.syncer(mine="w2")
        assert await there.sync() is False
        assert await world.agent.changes(10) == []
        reached = await world.master.cursor("one")
        assert reached > 0

        # Nobody's records are left to anybody, and who lost his place looks it up.
        await world.agent.settle([world.settlement(second)])
        await here.sync()
        assert await world.master.cursor("one") > reached
        third = world.job()
        await world.put(third)
        await world.agent.settle([world.settlement(job) for job in await world.claim()])
        await there.sync()
        assert len(await world.agent.changes(10)) == 1
        await there.sync()
        assert await world.agent.changes(10) == []
        assert [len(await world.master.runs(job.id)) for job in (*jobs, third)] == [1, 1, 1]


@pytest.mark.asyncio
async def test_lost_answers_neither_stop_nor_double_what_goes_by_cursor() -> None:
    async with World() as world:
        by_cursor(world)
        await world.put(world.job())
        (job,) = await world.claim()
        await world.agent.settle([world.settlement(job)])
        duty = world.syncer()
        world.master.lost.add("apply")
        with pytest.raises(MasterUnavailable):
            await duty.sync()
        world.switches["one"].lost.add("changes")
        with pytest.raises(AgentUnreachable):
            await duty.sync()
        world.switches["one"].away = True
        with pytest.raises(AgentUnreachable):
            await duty.sync()
        world.switches["one"].away = False
        await duty.sync()
        assert await world.agent.changes(10) == []
        assert len(await world.master.runs(job.id)) == 1


@pytest.mark.asyncio
async def test_a_copier_shows_jobs_in_flight_once_they_are_older_than_the_lag() -> None:
    async with World() as world:
        copier = Copier(world.master, world.agent, world.agents.time("one"), world.clock, 2.0)
        job = world.job(id=floor_id(world.clock.wall_us()))
        await world.put(job)
        world.clock.advance(1.9)
        await until_idle(copier.run)
        assert await world.known(job.id) is None
        world.clock.advance(0.2)
        await until_idle(copier.run)
        copy = await world.known(job.id)
        assert copy is not None
        assert copy.state is JobState.QUEUED
        await world.claim()
        world.clock.advance(60)
        await until_idle(copier.run)
        copy = await world.known(job.id)
        assert copy is not None
        assert copy.state is JobState.RUNNING


@pytest.mark.asyncio
async def test_a_heartbeat_reaches_the_agent_also_while_the_master_is_away() -> None:
    async with World() as world:
        duty = Heartbeat(world.master, world.agent, lambda: [world.card("work")], 3.0)
        assert await duty.run() == 3.0
        assert [agent for agent, _ in await world.master.workers()] == ["one"]
        world.clock.advance(3)
        world.master.away = True
        await duty.run()
        (card,) = await world.agent.workers()
        assert card.beat_us == world.clock.wall_us()
        await duty.leave("w1")
        assert await world.agent.workers() == []


@pytest.mark.asyncio
async def test_a_heartbeat_reaches_the_agent_before_a_master_that_hangs() -> None:
    class Hanging:
        async def beat(self, agent: str, card: Any) -> None:
            await asyncio.Event().wait()

    async with World() as world:
        master: Any = Hanging()
        beating = asyncio.create_task(Heartbeat(master, world.agent, lambda: [world.card("work")], 3.0).run())
        await eventually(world.agent.workers, within=5)
        beating.cancel()
