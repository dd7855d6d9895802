"""Hints: what this process does to an agent wakes what follows from it."""

import pytest

from jobmaster.contracts.values import PUT_WINDOW_US, Revoke, RevokeKind
from jobmaster.coordination.hints import Hints, hinting
from jobmaster.model.outcome import RunOutcome
from tests.unit.coordination.world import SECOND, World


class Counted:
    def __init__(self, world: World) -> None:
        self.woken: list[str] = []
        hints = Hints()
        hints.delayed = lambda: self.woken.append("promoter")
        hints.recorded = lambda: self.woken.append("syncer")
        self.agent = hinting(world.agent, hints, world.clock)

    def taken(self) -> list[str]:
        woken, self.woken = self.woken, []
        return woken


@pytest.mark.asyncio
async def test_only_what_is_due_soon_but_not_yet_wakes_the_promoter() -> None:
    async with World() as world:
        counted = Counted(world)
        for due_in, expected in ((0, []), (0.5, ["promoter"]), (60, [])):
            await counted.agent.put([world.job(due_in=due_in)], world.clock.wall_us() + PUT_WINDOW_US)
            assert counted.taken() == expected


@pytest.mark.asyncio
async def test_a_settlement_wakes_the_syncer_and_a_short_delay_the_promoter_too() -> None:
    async with World() as world:
        counted = Counted(world)
        await world.put(*(world.job() for _ in range(3)))
        done, soon, late = await world.claim()
        await counted.agent.settle([world.settlement(done)])
        assert counted.taken() == ["syncer"]
        await counted.agent.settle([world.settlement(soon, RunOutcome.RETRY_AT, after_us=SECOND // 2)])
        assert counted.taken() == ["syncer", "promoter"]
        await counted.agent.settle([world.settlement(late, RunOutcome.RETRY_AT, after_us=60 * SECOND)])
        assert counted.taken() == ["syncer"]


@pytest.mark.asyncio
async def test_a_revocation_wakes_the_syncer_and_everything_else_goes_straight_through() -> None:
    async with World() as world:
        counted = Counted(world)
        job = world.job()
        await world.put(job)
        await counted.agent.revoke([Revoke(job.id, 1, RevokeKind.CANCEL)])
        assert counted.taken() == ["syncer"]
        assert counted.agent.name == "one"
        assert counted.agent.traits == world.agent.traits
        assert [item.job.id for item in await counted.agent.changes(10) if item.job is not None] == [job.id]
        assert counted.taken() == []
