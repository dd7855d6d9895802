"""The master contract: schedules as they are made, edited, paused and ended."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import Schedule, ScheduleState, TickState
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.model.terms import Misfire, Overlap, Terms
from jobmaster.recurrence import Recurrence, cron
from jobmaster.testing.masters.harness import MasterHarness, planning, record, run_of, schedule

MINUTE_US = 60_000_000


async def saved(master: MasterStore, given: Schedule) -> Schedule:
    answer = await master.save_schedule(given)
    assert answer.changed
    return answer.schedule


async def planned(master: MasterStore, key: str = "welcome") -> list[tuple[int, Job]]:
    """Ticks that have a job, oldest first."""
    entries = await master.occurrences(key, None, 100)
    return [
        (entry.occurrence.tick_us, entry.job)
        for entry in reversed(entries)
        if entry.occurrence.state is TickState.PLANNED and entry.job is not None
    ]


class ScheduleCases:
    @pytest.mark.asyncio
    async def test_a_schedule_comes_back_as_it_was_saved(self, store: MasterHarness) -> None:
        master = await store.open()
        terms = Terms(misfire=Misfire.ALL, most=7, overlap=Overlap.QUEUE, jitter_us=5, start_us=10, end_us=2**60)
        given = schedule(
            "welcome:ü",
            cron("0 9 * * MON-FRI", timezone="Europe/Berlin"),
            terms=terms,
            lane="mails",
            priority=0,
            agent="transport-2",
            data=b'{"a":"\xc3\xbc"}',
            policy=b'{"grace_us":1}',
            labels=b'{"tags":["a"]}',
        )
        stored = await saved(master, given)
        kept = {name: getattr(stored, name) for name in Schedule.__struct_fields__[-7:]}
        assert replace(given, **kept, anchor_us=stored.anchor_us) == stored
        now_us = await master.store_now_us()
        assert stored.next_us == Recurrence.from_json(given.recurrence).next_after(stored.created_us)
        assert (stored.anchor_us, stored.version, stored.state) == (10, 1, ScheduleState.ACTIVE)
        assert now_us - 5_000_000 <= stored.created_us <= now_us
        assert await master.schedules() == [stored]
        assert await master.schedule("welcome:ü") == stored
        assert await master.schedule("nobody") is None
        if store.restartable:
            assert await (await store.restart()).schedules() == [stored]

    @pytest.mark.asyncio
    async def test_a_new_schedule_begins_with_the_first_tick_after_now(self, store: MasterHarness) -> None:
        master = await store.open()
        stored = await saved(master, schedule())
        assert stored.next_us == stored.created_us + MINUTE_US == stored.anchor_us + MINUTE_US

    @pytest.mark.asyncio
    async def test_saving_what_is_there_changes_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        stored = await saved(master, schedule())
        answer = await master.save_schedule(schedule())
        assert (answer.schedule, answer.changed, answer.taken) == (stored, False, ())

    @pytest.mark.asyncio
    async def test_an_edit_of_the_data_keeps_the_rhythm(self, store: MasterHarness) -> None:
        master = await store.open()
        first = await saved(master, schedule())
        edited = await saved(master, schedule(data=b"2", lane="mails"))
        assert edited == replace(first, data=b"2", lane="mails", version=2, look_us=edited.look_us)

    @pytest.mark.asyncio
    async def test_another_interval_counts_from_the_same_anchor(self, store: MasterHarness) -> None:
        master = await store.open()
        first = await saved(master, schedule())
        edited = await saved(master, schedule(when=timedelta(hours=2)))
        assert (edited.anchor_us, edited.next_us) == (first.anchor_us, first.anchor_us + 120 * MINUTE_US)

    @pytest.mark.asyncio
    async def test_a_start_is_the_anchor_and_no_tick_comes_before(self, store: MasterHarness) -> None:
        master = await store.open()
        start_us = await master.store_now_us() + 3_600_000_000 + 7
        stored = await saved(master, schedule(terms=Terms(start_us=start_us)))
        assert (stored.anchor_us, stored.next_us) == (start_us, start_us)
        assert (await master.plan(planning())).planned == 0

    @pytest.mark.asyncio
    async def test_a_schedule_that_would_never_tick_has_ended(self, store: MasterHarness) -> None:
        master = await store.open()
        end_us = await master.store_now_us() + MINUTE_US // 2
        stored = await saved(master, schedule(terms=Terms(end_us=end_us)))
        assert stored.state is ScheduleState.ENDED
        assert not (await master.save_schedule(schedule(terms=Terms(end_us=end_us)))).changed

    @pytest.mark.asyncio
    async def test_an_ended_schedule_begins_anew(self, store: MasterHarness) -> None:
        master = await store.open()
        first = await saved(master, schedule())
        ended = await master.turn_schedule("welcome", ScheduleState.ENDED)
        assert ended is not None
        assert (ended.schedule.state, ended.changed) == (ScheduleState.ENDED, True)
        again = await saved(master, schedule())
        assert (again.state, again.created_us, again.version) == (ScheduleState.ACTIVE, first.created_us, 3)

    @pytest.mark.asyncio
    async def test_turning_what_is_turned_so_changes_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule())
        states = [ScheduleState.PAUSED] * 2 + [ScheduleState.ACTIVE] * 2 + [ScheduleState.ENDED] * 2
        answers = [await master.turn_schedule("welcome", state) for state in (*states, ScheduleState.ACTIVE)]
        assert [answer is not None and answer.changed for answer in answers] == [True, False] * 3 + [False]
        assert await master.turn_schedule("nobody", ScheduleState.ENDED) is None
        assert [entry.state for entry in await master.schedules()] == [ScheduleState.ENDED]

    @pytest.mark.asyncio
    async def test_a_pause_survives_an_edit(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule())
        await master.turn_schedule("welcome", ScheduleState.PAUSED)
        assert (await saved(master, schedule(data=b"2"))).state is ScheduleState.PAUSED
        assert (await master.plan(planning())).planned == 0

    @pytest.mark.asyncio
    async def test_a_key_of_another_owner_is_left_alone(self, store: MasterHarness) -> None:
        master = await store.open()
        mine = await saved(master, schedule(profile="nightly"))
        for owner in (None, "hourly"):
            answer = await master.save_schedule(schedule(profile=owner, data=b"2"))
            assert (answer.schedule, answer.changed) == (mine, False)

    @pytest.mark.asyncio
    async def test_a_pause_takes_back_the_ticks_to_come(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule())
        jobs = list((await master.plan(planning())).placements)
        assert len(jobs) == 2
        await master.dispatched([(jobs[1].job.id, 1)])
        turned = await master.turn_schedule("welcome", ScheduleState.PAUSED)
        assert turned is not None
        assert {(item.job_id, item.epoch, item.agent) for item in turned.taken} == {
            (placement.job.id, 1, "transport-1") for placement in jobs
        }
        states = [entry.occurrence.state for entry in await master.occurrences("welcome", None, 10)]
        assert states == [TickState.WITHDRAWN] * 2
        # What was not handed over is stopped at once; what is on an agent is the agent's.
        known = {job.id: job.state for job in await master.get([item.job.id for item in jobs]) if job is not None}
        assert known == {jobs[0].job.id: JobState.CANCELLED, jobs[1].job.id: JobState.QUEUED}
        assert await master.overdue("transport-1", 10) == []

    @pytest.mark.asyncio
    async def test_a_resumption_gets_back_the_ticks_that_a_pause_took(self, store: MasterHarness) -> None:
        master = await store.open()
        first = await saved(master, schedule())
        before = list((await master.plan(planning())).placements)
        await master.dispatched([(before[1].job.id, 1)])
        await master.turn_schedule("welcome", ScheduleState.PAUSED)
        resumed = await master.turn_schedule("welcome", ScheduleState.ACTIVE)
        assert resumed is not None
        assert resumed.schedule.next_us == first.next_us
        again = (await master.plan(planning())).placements
        assert [(item.job.id, item.job.epoch) for item in again] == [(item.job.id, 2) for item in before]
        assert all(item.job.version > 1 for item in again)
        assert [job for _, job in await planned(master)] == [item.job for item in again]

    @pytest.mark.asyncio
    async def test_a_tick_that_ran_after_all_is_not_repeated(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule())
        (one, two) = (await master.plan(planning())).placements
        await master.dispatched([(one.job.id, 1), (two.job.id, 1)])
        await master.turn_schedule("welcome", ScheduleState.PAUSED)
        ended = replace(one.job, state=JobState.SUCCEEDED, version=3, finished_us=one.job.due_us)
        await master.apply("transport-1", [record(ended, run=run_of(ended))])
        assert await master.tick_ran([("welcome", two.job.due_us), ("welcome", 5)]) == 1
        await master.turn_schedule("welcome", ScheduleState.ACTIVE)
        assert (await master.plan(planning())).placements == ()
        assert [tick_us for tick_us, _ in await planned(master)] == [one.job.due_us, two.job.due_us]

    @pytest.mark.asyncio
    async def test_an_edit_gives_the_ticks_to_come_the_new_data(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule())
        before = (await master.plan(planning())).placements
        answer = await master.save_schedule(schedule(data=b"2"))
        assert [item.job_id for item in answer.taken] == [item.job.id for item in before][::-1]
        after = (await master.plan(planning())).placements
        assert [(item.job.id, item.job.data) for item in after] == [(item.job.id, b"2") for item in before]

    @pytest.mark.asyncio
    async def test_an_edit_of_the_rule_drops_its_ticks_and_editing_back_revives_them(
        self, store: MasterHarness
    ) -> None:
        master = await store.open()
        await saved(master, schedule())
        before = (await master.plan(planning())).placements
        await saved(master, schedule(when=timedelta(hours=1)))
        assert (await master.plan(planning())).planned == 0
        await saved(master, schedule())
        after = (await master.plan(planning())).placements
        assert [item.job.id for item in after] == [item.job.id for item in before]

    @pytest.mark.asyncio
    async def test_an_end_takes_back_what_still_waits(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(when=timedelta(seconds=1)))
        await store.advance(1.5)
        (waiting,) = (await master.plan(planning(ahead_us=0))).placements
        await master.dispatched([(waiting.job.id, 1)])
        paused = await master.turn_schedule("welcome", ScheduleState.PAUSED)
        assert paused is not None
        assert paused.taken == ()
        ended = await master.turn_schedule("welcome", ScheduleState.ENDED)
        assert ended is not None
        assert [item.job_id for item in ended.taken] == [waiting.job.id]

    @pytest.mark.asyncio
    async def test_a_pause_never_replays(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(when=timedelta(seconds=1), terms=Terms(misfire=Misfire.ALL, most=100)))
        await master.turn_schedule("welcome", ScheduleState.PAUSED)
        await store.advance(2.5)
        await master.turn_schedule("welcome", ScheduleState.ACTIVE)
        assert (await master.plan(planning(ahead_us=0))).planned == 0
        assert await master.occurrences("welcome", None, 10) == []

    @pytest.mark.asyncio
    async def test_keys_are_told_apart_byte_by_byte(self, store: MasterHarness) -> None:
        master = await store.open()
        keys = ["order-1", "Order-1", "order-1 ", " order-1", "\u00f3rder-1", "o\u0301rder-1", "order-1\\", "%", "_"]
        keys += ["'; DROP TABLE schedule;--", "\U0001f600", "x" * 255, "\u00e9" * 127]
        for number, key in enumerate(keys):
            await saved(master, schedule(key, data=b"%d" % number))
        found = {entry.key: entry.data for entry in await master.schedules()}
        assert found == {key: b"%d" % number for number, key in enumerate(keys)}
        report = await master.plan(planning())
        assert report.planned == 2 * len(keys)
        assert {item.job.schedule: item.job.data for item in report.placements} == found
        for key in keys:
            assert len(await planned(master, key)) == 2
        assert (await master.plan(planning())).planned == 0
