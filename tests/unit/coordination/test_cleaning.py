"""Sweeper and pruner: what goes, and what stays."""

import pytest

from jobmaster.coordination.pruner import DAY_US, Pruner
from jobmaster.coordination.sweeper import GONE_US, Sweeper
from tests.unit.coordination.world import SECOND, World, until_idle


async def finish_one(world: World) -> str:
    await world.put(world.job())
    (job,) = await world.claim()
    await world.agent.settle([world.settlement(job)])
    await until_idle(world.syncer().run)
    return job.id


@pytest.mark.asyncio
async def test_history_past_its_retention_goes_and_younger_history_stays() -> None:
    async with World() as world:
        old = await finish_one(world)
        world.clock.advance(2 * DAY_US / SECOND)
        young = await finish_one(world)
        world.clock.advance(DAY_US / SECOND)
        await until_idle(Pruner(world.master, world.agents, world.master_time, retention_days=2).run)
        assert await world.known(old) is None
        assert await world.known(young) is not None


@pytest.mark.asyncio
async def test_without_retention_history_stays_for_ever() -> None:
    async with World() as world:
        old = await finish_one(world)
        world.clock.advance(1_000 * DAY_US / SECOND)
        await until_idle(Pruner(world.master, world.agents, world.master_time, retention_days=None).run)
        assert await world.known(old) is not None


@pytest.mark.asyncio
async def test_an_agent_that_is_away_keeps_no_other_from_being_pruned() -> None:
    async with World() as world:
        world.switches["one"].away = True
        await until_idle(Pruner(world.master, world.agents, world.master_time, retention_days=1).run)
        assert "prune" in world.switches["two"].calls


@pytest.mark.asyncio
async def test_cards_of_workers_long_gone_are_taken_off_both_lists() -> None:
    async with World() as world:
        await world.agent.register(world.card("work", worker="gone"))
        await world.master.beat("one", world.card("work", worker="gone"))
        world.clock.advance(GONE_US / SECOND + 1)
        await world.agent.register(world.card("work", worker="here"))
        await until_idle(Sweeper(world.master, world.agents).run)
        assert [card.id for card in await world.agent.workers()] == ["here"]
        assert await world.master.workers() == []
