"""Sweeper and pruner: what goes, and what stays."""

import pytest

from jobmaster.coordination.pruner import Pruner
from jobmaster.coordination.retention import DAY_US, Rule, rules
from jobmaster.coordination.sweeper import GONE_US, Sweeper
from jobmaster.model.outcome import RunOutcome
from jobmaster.settings.models import RetentionSettings
from tests.unit.coordination.world import SECOND, World, until_idle


def everything(days: float | None) -> list[Rule]:
    return rules(days, RetentionSettings())


async def finish_one(world: World, handler: str = "work", outcome: RunOutcome = RunOutcome.SUCCEEDED) -> str:
    await world.put(world.job(handler=handler))
    (job,) = await world.claim(handler=handler)
    await world.agent.settle([world.settlement(job, outcome)])
    await until_idle(world.syncer().run)
    return job.id


@pytest.mark.asyncio
async def test_history_past_its_retention_goes_and_younger_history_stays() -> None:
    async with World() as world:
        old = await finish_one(world)
        world.clock.advance(2 * DAY_US / SECOND)
        young = await finish_one(world)
        world.clock.advance(DAY_US / SECOND)
        await until_idle(Pruner(world.master, world.agents, world.master_time, rules=everything(2)).run)
        assert await world.known(old) is None
        assert await world.known(young) is not None


@pytest.mark.asyncio
async def test_without_retention_history_stays_for_ever() -> None:
    async with World() as world:
        old = await finish_one(world)
        world.clock.advance(1_000 * DAY_US / SECOND)
        await until_idle(Pruner(world.master, world.agents, world.master_time, rules=everything(None)).run)
        assert await world.known(old) is not None


@pytest.mark.asyncio
async def test_an_agent_that_is_away_keeps_no_other_from_being_pruned() -> None:
    async with World() as world:
        world.switches["one"].away = True
        await until_idle(Pruner(world.master, world.agents, world.master_time, rules=everything(1)).run)
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


@pytest.mark.asyncio
async def test_each_state_and_handler_has_its_own_time() -> None:
    kept = RetentionSettings.model_validate(
        {
            "succeeded": 1,
            "failed": "forever",
            "handlers": {"audit": {"succeeded": "forever"}, "noise": {"succeeded": 0.5, "failed": 2}},
        }
    )
    async with World() as world:
        made = {
            (handler, outcome): await finish_one(world, handler, outcome)
            for handler in ("work", "audit", "noise")
            for outcome in (RunOutcome.SUCCEEDED, RunOutcome.FAILED)
        }
        gone: list[set[tuple[str, str]]] = []
        for days in (0.6, 0.6, 1.0, 30.0):
            world.clock.advance(days * DAY_US / SECOND)
            await until_idle(Pruner(world.master, world.agents, world.master_time, rules(30, kept)).run)
            missing = {(key[0], str(key[1])) for key, job in made.items() if await world.known(job) is None}
            gone.append(missing - set().union(*gone))
    assert gone == [{("noise", "succeeded")}, {("work", "succeeded")}, {("noise", "failed")}, set()]


def test_one_time_for_all_is_one_rule() -> None:
    assert len(everything(30)) == 1
    assert everything(None) == []
    same = RetentionSettings(succeeded=30, failed=30, cancelled=30)
    assert rules(None, same) == everything(30)
    # Occurrences and the like still go by the general time.
    assert rules(7, RetentionSettings(failed="forever"))[-1].which.states == frozenset()
