"""What an agent should have and has not is placed anew; what is under way is left alone."""

import pytest

from jobmaster.coordination.seeker import PASS_SECONDS, Seeker
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from tests.unit.coordination.test_reconciler import store_of
from tests.unit.coordination.world import World, until_idle


async def copied(world: World) -> Job:
    """A job that is on the agent, and that the master knows to be there."""
    job = world.job(agent="one")
    await world.put(job)
    await world.master.copy("one", await world.agent.find([job.id]))
    return job


def vanish(world: World, job: Job) -> None:
    store = store_of(world)
    store.shelf.remove(store.shelf.rows[job.id])


@pytest.mark.asyncio
async def test_a_job_that_is_missing_twice_is_placed_anew() -> None:
    async with World() as world:
        kept, lost = await copied(world), await copied(world)
        vanish(world, lost)
        seeker = Seeker(world.master, world.agent, world.clock)

        assert await until_idle(seeker.run) == PASS_SECONDS
        assert await world.agent.changes(10) == []
        world.clock.advance(PASS_SECONDS)
        await until_idle(seeker.run)
        await until_idle(world.syncer().run)

        placed = await world.known(lost.id)
        assert placed is not None
        assert placed.state is JobState.HELD
        stands = await world.known(kept.id)
        assert stands is not None
        assert stands.state is JobState.QUEUED


@pytest.mark.asyncio
async def test_what_moved_on_between_two_passes_is_left_alone() -> None:
    async with World() as world:
        job = await copied(world)
        vanish(world, job)
        seeker = Seeker(world.master, world.agent, world.clock)
        await until_idle(seeker.run)

        # Its next copy shows that somebody still works on it.
        newer = world.job(id=job.id, agent="one", version=job.version + 1)
        await world.master.copy("one", [newer])
        world.clock.advance(PASS_SECONDS)
        await until_idle(seeker.run)

        assert await world.agent.changes(10) == []


@pytest.mark.asyncio
async def test_what_has_ended_but_is_not_brought_over_yet_is_not_missing() -> None:
    async with World() as world:
        job = await copied(world)
        [claimed] = await world.claim()
        await world.agent.settle([world.settlement(claimed)])
        seeker = Seeker(world.master, world.agent, world.clock)
        for _ in range(2):
            await until_idle(seeker.run)
            world.clock.advance(PASS_SECONDS)

        await until_idle(world.syncer().run)
        ended = await world.known(job.id)
        assert ended is not None
        assert ended.state is JobState.SUCCEEDED
