"""Ageing, and the warning about lanes that nobody serves."""

import pytest
import structlog

from jobmaster.contracts.values import Control, ControlKind, WorkerCard
from jobmaster.coordination.ageing import Ageing, aged
from jobmaster.coordination.router import Router
from jobmaster.enqueue import Enqueue
from jobmaster.model.ids import IdFactory
from jobmaster.model.job import Job
from jobmaster.model.priority import Priority
from jobmaster.telemetry.gauges import gauges
from tests.unit.scheduler.kit import Kit, Plain, SendWelcome, Welcome, opened

AFTER_US = 600_000_000


@pytest.mark.parametrize(
    ("priority", "minutes", "becomes"),
    [
        (Priority.VERY_LOW, 9, Priority.VERY_LOW),
        (Priority.VERY_LOW, 10, Priority.LOW),
        (Priority.MEDIUM, 19, Priority.MEDIUM),
        (Priority.MEDIUM, 25, Priority.MEDIUM),
        (Priority.MEDIUM, 30, Priority.HIGH),
        (Priority.VERY_LOW, 40, Priority.CRITICAL),
        (Priority.CRITICAL, 500, Priority.CRITICAL),
        (Priority.LOW, -60, Priority.LOW),
    ],
)
def test_the_rank_that_a_wait_makes(priority: Priority, minutes: int, becomes: Priority) -> None:
    now_us = 10**15
    job = Job(
        id="0" * 36,
        handler="h",
        priority=priority,
        created_us=0,
        original_due_us=0,
        due_us=now_us - minutes * 60_000_000,
    )
    rank = aged(job, now_us, AFTER_US)
    assert rank == becomes


async def claimed(kit: Kit) -> list[str]:
    return [job.id for job in await kit.claim(limit=1)]


@pytest.mark.asyncio
async def test_a_job_that_is_passed_over_goes_up_until_it_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as kit:
        # Ids say when a job was made, by the clock that everything here goes by.
        monkeypatch.setattr(
            "jobmaster.client.drafting.new_id", IdFactory(lambda: kit.clock.wall_us() // 1_000).new, raising=True
        )
        scheduler, ageing = kit.scheduler(), Ageing(kit.transports["a"], AFTER_US)
        low = await scheduler.once_now(SendWelcome, Welcome("low"), priority="very_low")
        paused = await scheduler.once_now(Plain, priority="very_low")
        await kit.transports["a"].control(Control(ControlKind.PAUSE_LANE, "plain"))
        for minutes in range(3):
            await scheduler.many(Enqueue(SendWelcome, Welcome("new"), priority="high") for _ in range(3))
            await ageing.run()
            assert low.id not in await claimed(kit), minutes
            kit.clock.advance(660)
        await ageing.run()
        assert (await low.refresh()).priority is Priority.HIGH
        assert (await paused.refresh()).priority is Priority.VERY_LOW
        assert await claimed(kit) == [low.id]


@pytest.mark.asyncio
async def test_a_lane_that_nobody_serves_is_warned_of_once() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        router = Router(kit.transports["a"], dead_after_us=15_000_000, on_unroutable=lambda *_: None)
        await scheduler.once_now(Plain)
        with structlog.testing.capture_logs() as logged:
            await router.run()
            await router.run()
        (line,) = [line for line in logged if line["event"] == "router.lane_unserved"]
        assert (line["lane"], line["jobs"], line["agent"]) == ("plain", 1, "a")
        assert gauges()["unserved_jobs"]["a", "plain"] == 1
        card = WorkerCard(
            id="w", name="w", host="h", pid=1, lanes=("plain",), handlers=("plain",), slots=1, started_us=0
        )
        await kit.transports["a"].register(card)
        with structlog.testing.capture_logs() as logged:
            await router.run()
        assert logged == []
        assert gauges()["unserved_jobs"]["a", "plain"] == 0
