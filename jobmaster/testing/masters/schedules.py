"""The master contract: schedules, and exactly one job per occurrence."""

import asyncio

import pytest
from msgspec.structs import replace

from jobmaster.contracts.entries import Occurrence, Placement, ScheduleState
from jobmaster.model.errors import IllegalMove
from jobmaster.model.ids import new_id
from jobmaster.model.states import JobState
from jobmaster.testing.masters.harness import MasterHarness, dispatching, record, sample, schedule

NEXT = schedule().next_us


def occurrence(key: str = "welcome", tick_us: int = NEXT, **fields: object) -> Occurrence:
    defaults: dict[str, object] = {
        "schedule": key,
        "tick_us": tick_us,
        "watermark_us": tick_us,
        "next_us": tick_us + 60_000_000,
        "placement": dispatching(schedule=key, due_us=tick_us),
    }
    return Occurrence(**(defaults | fields))  # type: ignore[arg-type]  # names and types are the caller's


class ScheduleCases:
    @pytest.mark.asyncio
    async def test_a_schedule_comes_back_as_it_was_saved(self, store: MasterHarness) -> None:
        master = await store.open()
        saved = schedule(
            "welcome:ü",
            lane="mails",
            priority=0,
            agent="transport-2",
            data=b'{"a":"\xc3\xbc"}',
            policy=b'{"grace_us":1}',
            labels=b'{"tags":["a"]}',
            state=ScheduleState.PAUSED,
        )
        assert await master.save_schedule(saved) == saved
        assert await master.schedules() == [saved]
        if store.restartable:
            assert await (await store.restart()).schedules() == [saved]

    @pytest.mark.asyncio
    async def test_saving_an_unchanged_rule_keeps_its_watermark(self, store: MasterHarness) -> None:
        master = await store.open()
        first = schedule()
        await master.save_schedule(first)
        again = schedule(anchor_us=7, next_us=9, created_us=11, data=b"2", lane="mails")
        kept = replace(first, data=b"2", lane="mails")
        assert await master.save_schedule(again) == kept
        assert await master.schedules() == [kept]

    @pytest.mark.asyncio
    async def test_a_changed_rule_takes_the_given_watermark(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        changed = schedule(interval_us=5_000_000, anchor_us=7, next_us=9, created_us=11)
        assert await master.save_schedule(changed) == replace(changed, created_us=schedule().created_us)

    @pytest.mark.asyncio
    async def test_an_ended_schedule_begins_anew(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        assert await master.end_schedule("welcome")
        revived = await master.save_schedule(schedule(next_us=NEXT + 5))
        assert (revived.state, revived.next_us) == (ScheduleState.ACTIVE, NEXT + 5)

    @pytest.mark.asyncio
    async def test_only_active_schedules_are_due_soonest_first(self, store: MasterHarness) -> None:
        master = await store.open()
        for key, next_us in [("late", 300), ("soon", 100), ("middle", 200), ("ended", 10)]:
            await master.save_schedule(schedule(key, next_us=next_us))
        await master.save_schedule(schedule("paused", next_us=20, state=ScheduleState.PAUSED))
        assert await master.end_schedule("ended")
        assert [entry.key for entry in await master.due_schedules(200, 10)] == ["soon", "middle"]
        assert [entry.key for entry in await master.due_schedules(199, 10)] == ["soon"]
        assert [entry.key for entry in await master.due_schedules(10**18, 2)] == ["soon", "middle"]
        assert [entry.key for entry in await master.schedules()] == ["ended", "late", "middle", "paused", "soon"]

    @pytest.mark.asyncio
    async def test_a_schedule_ends_once(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        assert [await master.end_schedule(key) for key in ("welcome", "welcome", "nobody")] == [True, False, False]
        assert await master.plan([occurrence()]) == [False]
        assert await master.ticks("welcome", 10) == []

    @pytest.mark.asyncio
    async def test_planning_moves_the_watermark_and_inserts_the_job(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        item = occurrence()
        assert await master.plan([item]) == [True]
        assert await master.get([item.placement.job.id]) == [item.placement.job]
        assert await master.ticks("welcome", 10) == [(NEXT, item.placement.job.id)]
        assert [entry.next_us for entry in await master.schedules()] == [item.next_us]
        await store.advance(31)
        assert [late.job for late in await master.overdue("transport-1", 10)] == [item.placement.job]

    @pytest.mark.asyncio
    async def test_two_planners_make_one_occurrence(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        keys = [f"schedule-{number}" for number in range(10)]
        for key in keys:
            await one.save_schedule(schedule(key))
        mine, theirs = [occurrence(key) for key in keys], [occurrence(key) for key in keys[::-1]]
        first, second = await asyncio.gather(one.plan(mine), two.plan(theirs))
        won = [item for item, planned in zip([*mine, *theirs], [*first, *second], strict=True) if planned]
        lost = [item for item, planned in zip([*mine, *theirs], [*first, *second], strict=True) if not planned]
        assert sorted(item.schedule for item in won) == sorted(keys)
        assert await one.get([item.placement.job.id for item in lost]) == [None] * 10
        for item in won:
            assert await two.ticks(item.schedule, 10) == [(NEXT, item.placement.job.id)]

    @pytest.mark.asyncio
    async def test_several_ticks_of_one_schedule_are_planned_in_order(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        ticks = [NEXT + n * 60_000_000 for n in range(3)]
        assert await master.plan([occurrence(tick_us=tick) for tick in ticks]) == [True] * 3
        assert [tick for tick, _ in await master.ticks("welcome", 2)] == ticks[:0:-1]
        assert await master.plan([]) == []

    @pytest.mark.asyncio
    async def test_a_tick_that_has_its_job_only_moves_the_watermark(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        first = occurrence()
        await master.plan([first])
        await master.end_schedule("welcome")
        await master.save_schedule(schedule())
        again = occurrence()
        assert await master.plan([again]) == [False]
        assert await master.get([again.placement.job.id]) == [None]
        assert await master.ticks("welcome", 10) == [(NEXT, first.placement.job.id)]
        assert [entry.next_us for entry in await master.schedules()] == [again.next_us]

    @pytest.mark.asyncio
    async def test_an_occurrence_whose_job_has_ended_does_not_run_again(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        ended = sample(JobState.SUCCEEDED)
        await master.apply("transport-1", [record(ended)])
        assert await master.plan([occurrence(placement=dispatching(id=ended.id))]) == [False]
        assert await master.get([ended.id]) == [ended]

    @pytest.mark.asyncio
    async def test_an_occurrence_of_no_schedule_or_another_watermark_is_not_planned(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        items = [occurrence("nobody"), occurrence(watermark_us=NEXT - 1)]
        assert await master.plan(items) == [False, False]
        assert await master.get([item.placement.job.id for item in items]) == [None, None]
        assert [entry.next_us for entry in await master.schedules()] == [NEXT]

    @pytest.mark.asyncio
    async def test_a_plan_with_an_impossible_job_writes_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        with pytest.raises(IllegalMove):
            await master.plan([occurrence(), occurrence(placement=Placement(sample(JobState.RUNNING, id=new_id())))])
        assert await master.ticks("welcome", 10) == []
        assert [entry.next_us for entry in await master.schedules()] == [NEXT]

    @pytest.mark.asyncio
    async def test_keys_are_told_apart_byte_by_byte(self, store: MasterHarness) -> None:
        master = await store.open()
        keys = ["order-1", "Order-1", "order-1 ", " order-1", "\u00f3rder-1", "o\u0301rder-1", "order-1\\", "%", "_"]
        keys += ["'; DROP TABLE schedule;--", "\U0001f600", "x" * 255, "\u00e9" * 127]
        for number, key in enumerate(keys):
            await master.save_schedule(schedule(key, next_us=number + 1))
        found = {entry.key: entry.next_us for entry in await master.schedules()}
        assert found == {key: number + 1 for number, key in enumerate(keys)}
        for number, key in enumerate(keys):
            item = occurrence(key, tick_us=number + 1)
            assert await master.plan([item]) == [True]
            assert await master.ticks(key, 5) == [(number + 1, item.placement.job.id)]
