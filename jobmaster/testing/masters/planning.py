"""The master contract: ticks become jobs, exactly one each, whoever plans them."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from jobmaster.contracts.scheduling import ScheduleState, TickState
from jobmaster.model.ids import occurrence_id
from jobmaster.model.states import JobState
from jobmaster.model.terms import Misfire, Overlap, Terms
from jobmaster.testing.masters.harness import SECOND, MasterHarness, planning, record, run_of, sample, schedule
from jobmaster.testing.masters.schedules import MINUTE_US, planned, saved

EACH_SECOND = timedelta(seconds=1)


class PlanningCases:
    @pytest.mark.asyncio
    async def test_a_planned_tick_has_its_job(self, store: MasterHarness) -> None:
        master = await store.open()
        stored = await saved(master, schedule(lane="mails", priority=1, labels=b'{"tags":["a"]}'))
        report = await master.plan(planning())
        ticks = [stored.next_us, stored.next_us + MINUTE_US]
        assert [item.job.id for item in report.placements] == [occurrence_id("welcome", tick) for tick in ticks]
        job = report.placements[0].job
        assert (job.state, job.agent, job.schedule) == (JobState.DISPATCHING, "transport-1", "welcome")
        assert (job.due_us, job.original_due_us, job.epoch) == (ticks[0], ticks[0], 1)
        assert (job.handler, job.lane, job.priority, job.data, job.labels) == (
            stored.handler,
            "mails",
            1,
            stored.data,
            b'{"tags":["a"]}',
        )
        assert report.placements[0].put_deadline_us == 2_000_000_000_000_000
        assert await master.get([job.id]) == [job]
        (after,) = await master.schedules()
        assert (after.next_us, after.last_job) == (ticks[1] + MINUTE_US, report.placements[1].job.id)
        assert after.version == stored.version
        await store.advance(31)
        assert job in [late.job for late in await master.overdue("transport-1", 10)]

    @pytest.mark.asyncio
    async def test_a_tick_is_planned_once(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule())
        assert [(await master.plan(planning())).planned for _ in range(3)] == [2, 0, 0]

    @pytest.mark.asyncio
    async def test_only_active_schedules_of_served_agents_are_planned(self, store: MasterHarness) -> None:
        master = await store.open()
        for key in ("active", "paused", "ended"):
            await saved(master, schedule(key))
        await saved(master, schedule("elsewhere", agent="transport-9"))
        await saved(master, schedule("bound", agent="transport-1"))
        await master.turn_schedule("paused", ScheduleState.PAUSED)
        await master.turn_schedule("ended", ScheduleState.ENDED)
        report = await master.plan(planning())
        assert {item.job.schedule for item in report.placements} == {"active", "bound"}
        assert report.look_us is not None
        assert report.look_us > report.now_us
        elsewhere = await master.soonest(["transport-9"])
        assert elsewhere.look_us is not None
        assert elsewhere.look_us <= elsewhere.now_us
        assert (await master.soonest([])).look_us is not None

    @pytest.mark.asyncio
    async def test_unbound_ticks_take_the_drawn_agents_in_turn(self, store: MasterHarness) -> None:
        master = await store.open()
        for number in range(4):
            await saved(master, schedule(f"s{number}"))
        drawn = planning(agents={"a": 1, "b": 2}, draws=("a", "b"), ahead_us=61 * SECOND)
        report = await master.plan(drawn)
        assert (
            sorted((item.job.agent, item.put_deadline_us) for item in report.placements)
            == [("a", 1)] * 2 + [("b", 2)] * 2
        )
        await saved(master, schedule("late"))
        assert (await master.plan(planning(draws=()))).planned == 0

    @pytest.mark.asyncio
    async def test_a_lane_that_some_agents_serve_takes_those_drawn_for_it(self, store: MasterHarness) -> None:
        master = await store.open()
        for number in range(3):
            await saved(master, schedule(f"mail-{number}", lane="mails"))
        await saved(master, schedule("bound", lane="mails", agent="a"))
        await saved(master, schedule("other"))
        drawn = planning(agents={"a": 1, "b": 2, "c": 3}, draws=("a",), lane_draws={"mails": ("b", "c"), "none": ()})
        placed = {(item.job.schedule, item.job.agent) for item in (await master.plan(drawn)).placements}
        assert {(key, agent) for key, agent in placed if key in ("bound", "other")} == {("bound", "a"), ("other", "a")}
        assert {agent for key, agent in placed if key not in ("bound", "other")} == {"b", "c"}
        await saved(master, schedule("nobody's", lane="none"))
        assert (await master.plan(drawn)).planned == 0

    @pytest.mark.asyncio
    async def test_many_planners_make_one_job_of_each_tick(self, store: MasterHarness) -> None:
        masters = [await store.open() for _ in range(3)]
        keys = {f"schedule-{number}" for number in range(30)}
        for key in keys:
            await saved(masters[0], schedule(key))
        reports = await asyncio.gather(*(master.plan(planning()) for master in masters))
        reports += [await master.plan(planning()) for master in masters]
        ids = [item.job.id for report in reports for item in report.placements]
        assert len(ids) == len(set(ids)) == 60
        assert {item.job.schedule for report in reports for item in report.placements} == keys

    @pytest.mark.asyncio
    async def test_a_batch_is_bounded_and_says_that_there_is_more(self, store: MasterHarness) -> None:
        master = await store.open()
        for number in range(7):
            await saved(master, schedule(f"s{number}"))
        by_schedules = await master.plan(planning(limit=2))
        assert (by_schedules.planned, by_schedules.more) == (4, True)
        by_jobs = await master.plan(planning(jobs=3))
        assert (by_jobs.planned, by_jobs.more) == (4, True)
        rest = await master.plan(planning())
        assert (rest.planned, rest.more) == (6, False)

    @pytest.mark.asyncio
    async def test_a_store_whose_time_is_not_believed_plans_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule())
        now_us = (await master.soonest([])).now_us
        ahead, behind = now_us + 3_600 * SECOND, now_us - 3_600 * SECOND
        for doubtful in (planning(not_before_us=ahead), planning(not_after_us=behind)):
            report = await master.plan(doubtful)
            assert (report.jumped, report.planned) == (True, 0)
        report = await master.plan(planning(not_before_us=now_us - SECOND, not_after_us=now_us + 60 * SECOND))
        assert (report.jumped, report.planned) == (False, 2)

    @pytest.mark.asyncio
    async def test_jitter_moves_the_job_and_not_the_tick(self, store: MasterHarness) -> None:
        master = await store.open()
        stored = await saved(master, schedule(terms=Terms(jitter_us=30 * SECOND)))
        (one, two) = (await master.plan(planning())).placements
        assert one.job.id == occurrence_id("welcome", stored.next_us)
        assert one.job.original_due_us == stored.next_us
        shifts = [item.job.due_us - item.job.original_due_us for item in (one, two)]
        assert all(0 <= shift <= 30 * SECOND for shift in shifts)
        assert len(set(shifts)) == 2

    @pytest.mark.asyncio
    async def test_a_schedule_ends_with_its_last_tick(self, store: MasterHarness) -> None:
        master = await store.open()
        end_us = await master.store_now_us() + 90 * SECOND
        await saved(master, schedule(terms=Terms(end_us=end_us)))
        assert (await master.plan(planning())).planned == 1
        assert [entry.state for entry in await master.schedules()] == [ScheduleState.ENDED]
        assert (await master.soonest(["transport-1"])).look_us is None

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("misfire", "most", "run"), [(Misfire.SKIP, 1, []), (Misfire.LATEST, 1, [10]), (Misfire.ALL, 3, [8, 9, 10])]
    )
    async def test_what_was_missed_is_decided_by_the_terms(
        self, store: MasterHarness, misfire: Misfire, most: int, run: list[int]
    ) -> None:
        master = await store.open()
        first = await saved(master, schedule(terms=Terms(misfire=misfire, most=most)))
        await store.advance(60 * 10 + 30)
        report = await master.plan(planning(ahead_us=0))
        ticks = {number: first.anchor_us + number * MINUTE_US for number in range(1, 11)}
        assert [item.job.due_us for item in report.placements] == [ticks[number] for number in run]
        assert report.missed == 10 - len(run)
        entries = await master.occurrences("welcome", None, 100)
        skipped = {e.occurrence.tick_us for e in entries if e.occurrence.state is TickState.SKIPPED}
        assert skipped == {ticks[number] for number in ticks if number not in run}
        assert {e.occurrence.note for e in entries} <= {"misfire", None}
        (after,) = await master.schedules()
        assert after.next_us == first.anchor_us + 11 * MINUTE_US
        # On a server time also passes by itself.
        late_us = (30 + 60 * (len(run) - 1) if run else 0) * SECOND
        assert late_us <= report.late_us < late_us + (20 * SECOND if run else 1)

    @pytest.mark.asyncio
    async def test_the_latest_missed_tick_gives_way_to_one_in_time(self, store: MasterHarness) -> None:
        master = await store.open()
        first = await saved(master, schedule())
        await store.advance(60 * 10 + 3)
        report = await master.plan(planning(ahead_us=0))
        assert [item.job.due_us for item in report.placements] == [first.anchor_us + 10 * MINUTE_US]

    @pytest.mark.asyncio
    async def test_a_long_downtime_is_looked_at_from_its_end(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(when=EACH_SECOND, terms=Terms(misfire=Misfire.SKIP)))
        await store.advance(86_400 * 365)
        report = await master.plan(planning(ahead_us=0))
        assert (report.missed, len(await master.occurrences("welcome", None, 1_000))) == (100, 100 + report.planned)

    @pytest.mark.asyncio
    async def test_skip_passes_a_tick_over_while_the_one_before_runs(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(terms=Terms(overlap=Overlap.SKIP)))
        await store.advance(61)
        (first,) = (await master.plan(planning())).placements
        await store.advance(60)
        asked = await master.plan(planning())
        assert [(item.job.id, item.cancel) for item in asked.blocking] == [(first.job.id, False)]
        assert (asked.planned, asked.overlapped) == (0, 0)
        told = await master.plan(planning(ended={first.job.id: False}))
        assert (told.planned, told.overlapped) == (0, 1)
        (latest, *_) = await master.occurrences("welcome", None, 10)
        assert (latest.occurrence.state, latest.occurrence.note, latest.job) == (TickState.SKIPPED, "overlap", None)
        await store.advance(60)
        assert (await master.plan(planning(ended={first.job.id: True}))).planned == 1

    @pytest.mark.asyncio
    async def test_the_history_knows_that_the_job_before_has_ended(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(terms=Terms(overlap=Overlap.SKIP)))
        await store.advance(61)
        (first,) = (await master.plan(planning())).placements
        ended = replace(first.job, state=JobState.SUCCEEDED, version=3, finished_us=first.job.due_us)
        await master.apply("transport-1", [record(ended, run=run_of(ended))])
        await store.advance(60)
        report = await master.plan(planning())
        assert (report.planned, report.blocking) == (1, ())

    @pytest.mark.asyncio
    async def test_queue_holds_the_tick_back_until_the_one_before_has_ended(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(terms=Terms(overlap=Overlap.QUEUE)))
        await store.advance(61)
        (first,) = (await master.plan(planning())).placements
        await store.advance(60)
        waiting = await master.plan(planning(ended={first.job.id: False}))
        assert (waiting.planned, waiting.overlapped, waiting.blocking) == (0, 0, ())
        assert waiting.look_us is not None
        assert waiting.look_us > waiting.now_us
        await store.advance(0.6)
        (second,) = (await master.plan(planning(ended={first.job.id: True}))).placements
        assert second.job.due_us == first.job.due_us + MINUTE_US

    @pytest.mark.asyncio
    async def test_cancel_previous_asks_for_that_before_it_plans(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(terms=Terms(overlap=Overlap.CANCEL_PREVIOUS)))
        await store.advance(61)
        (first,) = (await master.plan(planning())).placements
        await store.advance(60)
        asked = await master.plan(planning())
        assert [(item.job.id, item.cancel) for item in asked.blocking] == [(first.job.id, True)]
        unsure = await master.plan(planning(ended={first.job.id: False}))
        assert (unsure.planned, unsure.blocking) == (0, ())
        await store.advance(0.6)
        assert (await master.plan(planning(ended={first.job.id: True}))).planned == 1

    @pytest.mark.asyncio
    async def test_overlapping_ticks_are_never_planned_ahead(self, store: MasterHarness) -> None:
        master = await store.open()
        await saved(master, schedule(terms=Terms(overlap=Overlap.QUEUE)))
        report = await master.plan(planning())
        assert report.planned == 0
        assert report.look_us is not None
        assert report.look_us > report.now_us

    @pytest.mark.asyncio
    async def test_an_occurrence_whose_job_has_ended_does_not_run_again(self, store: MasterHarness) -> None:
        master = await store.open()
        stored = await saved(master, schedule())
        ended = sample(JobState.SUCCEEDED, id=occurrence_id("welcome", stored.next_us))
        await master.apply("transport-1", [record(ended)])
        report = await master.plan(planning())
        assert [item.job.due_us for item in report.placements] == [stored.next_us + MINUTE_US]
        assert await master.get([ended.id]) == [ended]

    @pytest.mark.asyncio
    async def test_a_backfill_makes_jobs_of_ticks_that_have_none(self, store: MasterHarness) -> None:
        master = await store.open()
        stored = await saved(master, schedule())
        (one, two) = (await master.plan(planning())).placements
        past = [stored.next_us - number * MINUTE_US for number in (3, 2, 1)]
        report = await master.backfill("welcome", [*past, one.job.due_us], planning())
        assert [item.job.due_us for item in report.placements] == past
        assert (await master.backfill("welcome", past, planning())).planned == 0
        assert [tick for tick, _ in await planned(master)] == [*past, one.job.due_us, two.job.due_us]
        (after,) = await master.schedules()
        assert after.next_us == stored.next_us + 2 * MINUTE_US
        assert (await master.backfill("nobody", past, planning())).planned == 0

    @pytest.mark.asyncio
    async def test_a_backfill_takes_what_was_skipped(self, store: MasterHarness) -> None:
        master = await store.open()
        first = await saved(master, schedule(terms=Terms(misfire=Misfire.SKIP)))
        await store.advance(60 * 3 + 30)
        assert (await master.plan(planning(ahead_us=0))).missed == 3
        ticks = [first.next_us + number * MINUTE_US for number in range(3)]
        assert (await master.backfill("welcome", ticks, planning())).planned == 3
        notes = {entry.occurrence.note for entry in await master.occurrences("welcome", None, 10)}
        assert notes == {"backfill"}

    @pytest.mark.asyncio
    async def test_occurrences_are_listed_latest_first(self, store: MasterHarness) -> None:
        master = await store.open()
        stored = await saved(master, schedule(when=timedelta(seconds=30)))
        report = await master.plan(planning())
        entries = await master.occurrences("welcome", None, 3)
        assert [entry.occurrence.tick_us for entry in entries] == [
            stored.next_us + number * 30 * SECOND for number in (4, 3, 2)
        ]
        assert entries[0].occurrence.planned_us == report.now_us
        rest = await master.occurrences("welcome", entries[-1].occurrence.tick_us, 100)
        assert [entry.occurrence.tick_us for entry in rest] == [stored.next_us + 30 * SECOND, stored.next_us]
        assert await master.occurrences("nobody", None, 10) == []

    @pytest.mark.asyncio
    async def test_one_node_at_a_time_leads(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        first = await one.lead("planner", "node-1", 1_000_000)
        assert (first.holder, first.number, first.until_us - first.now_us) == ("node-1", 1, 1_000_000)
        assert (await two.lead("planner", "node-2", 1_000_000)).holder == "node-1"
        assert (await two.lead("pruner", "node-2", 1_000_000)).holder == "node-2"
        assert (await one.lead("planner", "node-1", 2_000_000)).number == 1
        await store.advance(2.1)
        after = await two.lead("planner", "node-2", 60_000_000)
        assert (after.holder, after.number) == ("node-2", 2)
        await one.resign("planner", "node-1")
        assert (await one.lead("planner", "node-1", 1)).holder == "node-2"
        await two.resign("planner", "node-2")
        assert (await one.lead("planner", "node-1", 1)).holder == "node-1"
