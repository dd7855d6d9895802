"""Schedules as a program makes and changes them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from jobmaster import Recurrence, cron
from jobmaster.contracts.scheduling import Schedule, ScheduleState, TickState
from jobmaster.coordination.delivery import Delivery
from jobmaster.coordination.planner import Planner
from jobmaster.model.errors import ExpressionInvalid, KeyInvalid, OptionInvalid, ScheduleNotFound
from jobmaster.model.states import JobState
from tests.unit.scheduler.kit import Kit, Plain, SendWelcome, Welcome, opened

asynchronous = pytest.mark.asyncio


async def plan(kit: Kit, ahead: int = 60) -> None:
    """What the duties do: plan what is due, and hand it over."""
    deliveries = {name: Delivery(kit.master, kit.agents[name], kit.clock) for name in kit.agents}
    rng = kit.rng
    planner = Planner(
        kit.master, kit.agents, deliveries, clock=kit.clock, rng=rng, pause_seconds=15, ahead_us=ahead * 1_000_000
    )
    await planner.run()
    for delivery in deliveries.values():
        await delivery.run()


@asynchronous
async def test_cron_text_and_interval_make_schedules() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        berlin = cron("0 9 * * MON-FRI", timezone="Europe/Berlin")
        daily = await scheduler.recurring(
            SendWelcome, berlin, Welcome("u"), key="daily", misfire="all(5)", overlap="skip", jitter=30
        )
        # The clock stands at Friday, 15 January 2027, 08:00 UTC.
        assert daily.next_at == datetime(2027, 1, 18, 8, tzinfo=UTC)
        assert (daily.when, daily.timezone, daily.every) == ("0 9 * * MON-FRI", "Europe/Berlin", None)
        assert (daily.misfire, daily.most, daily.overlap, daily.jitter) == ("all", 5, "skip", timedelta(seconds=30))
        text = await scheduler.recurring("plain", "every weekday at 18:00 in Europe/Berlin", key="text")
        assert text.next_at == datetime(2027, 1, 15, 17, tzinfo=UTC)
        assert [found.key for found in await scheduler.schedules()] == ["daily", "text"]
        assert await scheduler.schedule("text") == text


@asynchronous
async def test_a_start_and_an_end_bound_the_ticks() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        start = datetime(2027, 2, 1, 12, 30, tzinfo=ZoneInfo("Europe/Berlin"))
        end = start + timedelta(hours=3)
        made = await scheduler.recurring(Plain, timedelta(hours=1), key="k", start_after=start, end_before=end)
        assert made.next_at == start
        ticks = await scheduler.next_ticks("k", 10)
        assert [tick.at for tick in ticks] == [start + timedelta(hours=number) for number in range(3)]


@asynchronous
async def test_an_update_changes_what_is_given_and_nothing_else() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        await scheduler.recurring(
            SendWelcome, timedelta(hours=1), Welcome("u"), key="k", tags=["a"], title="t", priority="high", jitter=5
        )
        change = await scheduler.update_schedule("k", overlap="queue", tags=["b"], timeout=7)
        now = change.schedule
        assert (now.overlap, now.tags, now.title, now.jitter) == ("queue", ("b",), "t", timedelta(seconds=5))
        assert (now.every, now.data["user_id"], now.priority.name) == (timedelta(hours=1), "u", "HIGH")
        moved = await scheduler.update_schedule("k", timedelta(hours=2), {"user_id": "v"})
        assert (moved.schedule.every, moved.schedule.data["user_id"]) == (timedelta(hours=2), "v")
        assert not (await scheduler.update_schedule("k")).changed


@asynchronous
async def test_a_pause_withdraws_the_ticks_on_agents_and_a_resumption_runs_them() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        made = await scheduler.recurring(Plain, timedelta(seconds=30), key="k")
        await plan(kit)
        change = await scheduler.pause_schedule("k")
        assert change.withdrawn == (made.next_at, made.next_at and made.next_at + timedelta(seconds=30))
        assert (change.ran, change.unknown, change.schedule.next_at) == ((), (), None)
        kit.clock.advance(31)
        await kit.transports["a"].promote(10)
        assert await kit.claim() == []
        resumed = await scheduler.resume_schedule("k")
        assert made.next_at is not None
        assert resumed.schedule.next_at == made.next_at + timedelta(seconds=30)
        await plan(kit)
        kit.clock.advance(30)
        await kit.transports["a"].promote(10)
        (job,) = await kit.claim()
        assert (job.epoch, job.schedule) == (2, "k")
        await kit.sync()
        ticks = {tick.at: tick.state for tick in await scheduler.occurrences("k")}
        assert ticks[made.next_at] is TickState.WITHDRAWN


@asynchronous
async def test_a_cancel_names_what_runs_already() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        made = await scheduler.recurring(Plain, timedelta(seconds=30), key="k")
        await plan(kit)
        kit.clock.advance(30)
        await kit.transports["a"].promote(10)
        (job,) = await kit.claim()
        change = await scheduler.cancel_schedule("k")
        assert change.ran == (made.next_at,)
        assert len(change.withdrawn) == 1
        await kit.succeed([job])
        await kit.sync()
        kit.clock.advance(60)
        await plan(kit)
        await kit.transports["a"].promote(10)
        assert await kit.claim() == []
        states = [(tick.state, tick.job_state) for tick in await scheduler.occurrences("k")]
        assert states == [(TickState.WITHDRAWN, JobState.CANCELLED), (TickState.PLANNED, JobState.SUCCEEDED)]
        assert (await scheduler.schedule("k")).state is ScheduleState.ENDED


@asynchronous
async def test_run_now_makes_a_job_of_its_own() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        await scheduler.recurring(SendWelcome, timedelta(days=1), Welcome("u"), key="k", title="mine")
        await scheduler.pause_schedule("k")
        handle = await scheduler.run_schedule("k")
        (job,) = await kit.claim()
        assert (job.id, job.schedule) == (handle.id, "k")
        assert await scheduler.occurrences("k") == ()


@asynchronous
async def test_a_backfill_fills_a_range_once() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        made = await scheduler.recurring(Plain, "every hour", key="k")
        until = datetime(2027, 1, 15, 8, tzinfo=UTC)
        since = until - timedelta(hours=700)
        filled = await scheduler.backfill("k", since, until)
        assert (filled.planned, filled.present) == (700, 0)
        again = await scheduler.backfill("k", since - timedelta(hours=1), until)
        assert (again.planned, again.present) == (1, 700)
        assert len(await kit.claim(limit=1_000, lanes=("plain",))) == 701
        for wrong in ((until, since), (since, until + timedelta(days=1)), (since - timedelta(days=5_000), until)):
            with pytest.raises(OptionInvalid):
                await scheduler.backfill("k", *wrong)
        assert (await scheduler.schedule("k")).next_at == made.next_at


@asynchronous
async def test_the_history_of_ticks_tells_lateness_and_outcome() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        made = await scheduler.recurring(Plain, timedelta(seconds=30), key="k")
        await plan(kit)
        kit.clock.advance(32)
        await kit.transports["a"].promote(10)
        (job,) = await kit.claim()
        await kit.succeed([job])
        await kit.sync()
        (_, tick) = await scheduler.occurrences("k", limit=10)
        assert (tick.at, tick.job_id, tick.job_state) == (made.next_at, job.id, JobState.SUCCEEDED)
        assert (tick.lateness, tick.duration) == (timedelta(seconds=2), timedelta(0))


@pytest.mark.parametrize(
    "options",
    [
        {"misfire": "sometimes"},
        {"misfire": "all"},
        {"misfire": "all(0)"},
        {"misfire": "all(1000000000)"},
        {"overlap": "maybe"},
        {"jitter": -1},
        {"start_after": datetime(2027, 1, 1)},  # noqa: DTZ001 - that is what is refused
        {"start_after": datetime(2027, 1, 2, tzinfo=UTC), "end_before": datetime(2027, 1, 1, tzinfo=UTC)},
        {"overlap": 5},
        {"misfires": "skip"},
    ],
)
@asynchronous
async def test_terms_without_a_meaning_are_refused(options: dict[str, Any]) -> None:
    async with opened() as kit:
        with pytest.raises(OptionInvalid, match=next(iter(options)).rstrip("s") + "|end_before"):
            await kit.scheduler().recurring(Plain, "every hour", key="k", **options)
        assert await kit.scheduler().schedules() == ()


@pytest.mark.parametrize("when", ["0 0 31 2 *", "*/0 * * * *", "every 5 minuets", "@never", "x" * 10_000])
@asynchronous
async def test_expressions_without_a_tick_are_refused(when: str) -> None:
    async with opened() as kit:
        with pytest.raises(ExpressionInvalid):
            await kit.scheduler().recurring(Plain, when, key="k")


@asynchronous
async def test_what_is_not_there_is_not_found() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        for call in (scheduler.pause_schedule, scheduler.run_schedule, scheduler.schedule, scheduler.next_ticks):
            with pytest.raises(ScheduleNotFound, match="nobody"):
                await call("nobody")


@asynchronous
async def test_a_profiles_schedule_is_paused_but_not_edited_from_outside() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        rule = Recurrence.of(timedelta(hours=1)).to_json()
        declared = {"nightly": [Schedule(key="k", handler="plain", recurrence=rule, profile="nightly")]}
        assert (await scheduler.schedule_diff(declared)).added == ("k",)
        await kit.master.sync_profiles(declared, 0)
        with pytest.raises(KeyInvalid, match="nightly"):
            await scheduler.recurring(Plain, "every hour", key="k")
        with pytest.raises(KeyInvalid, match="nightly"):
            await scheduler.cancel_schedule("k")
        with pytest.raises(KeyInvalid, match="nightly"):
            await scheduler.update_schedule("k", "every hour")
        assert (await scheduler.pause_schedule("k")).schedule.state is ScheduleState.PAUSED
        assert not (await scheduler.schedule_diff(declared)).anything
