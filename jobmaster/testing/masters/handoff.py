"""The master contract: jobs held on the master and their hand-off."""

import asyncio

import pytest
from msgspec.structs import replace

from jobmaster.contracts.entries import Dispatch, HeldAnswer, Placement, Routes
from jobmaster.contracts.values import AmendAnswer, Amendment, PutAnswer
from jobmaster.model.errors import IllegalMove
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.policy import Labels
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.masters.harness import SECOND, MasterHarness, dispatching, held, record, run_of, sample

FAR = 9_000_000_000_000_000


class HandOffCases:
    @pytest.mark.asyncio
    async def test_a_job_comes_back_as_it_was_inserted(self, store: MasterHarness) -> None:
        master = await store.open()
        job = sample(
            JobState.HELD,
            lane="mails",
            priority=0,
            expires_us=FAR,
            schedule="ü key \U0001f600",
            effects=True,
            suspect=True,
            attempts=2,
            snoozes=3,
            interrupts=4,
            crash_count=1,
            claim_seq=7,
            agent="transport-2",
            worker="höst-1",
            progress=50,
            progress_note="half · done",
            data='{"x":"ü"}'.encode(),
            policy=b'{"timeout_us":5}',
            labels=Labels(title="Grüße", tags=("a",), metadata={"k": 1}).encode(),
            result=b"\x00\xff",
            error="ValueError: ß",
            first_started_us=1,
            started_us=2,
        )
        assert await master.insert([Placement(job)]) == [PutAnswer.STORED]
        assert await master.get([job.id]) == [job]
        if store.restartable:
            master = await store.restart()
            assert await master.get([job.id]) == [job]

    @pytest.mark.asyncio
    async def test_inserting_again_is_a_duplicate_and_other_content_a_conflict(self, store: MasterHarness) -> None:
        master = await store.open()
        item = held()
        other = Placement(replace(item.job, data=b"1"))
        assert await master.insert([item, item]) == [PutAnswer.STORED, PutAnswer.DUPLICATE]
        assert await master.insert([other, item]) == [PutAnswer.CONFLICT, PutAnswer.DUPLICATE]
        assert await master.insert([held(id=item.job.id, handler="other")]) == [PutAnswer.CONFLICT]
        assert await master.get([item.job.id]) == [item.job]

    @pytest.mark.asyncio
    async def test_an_ended_job_is_known_to_insert(self, store: MasterHarness) -> None:
        master = await store.open()
        ended = sample(JobState.SUCCEEDED)
        await master.apply("transport-1", [record(ended)])
        assert await master.insert([held(id=ended.id)]) == [PutAnswer.DUPLICATE]
        assert await master.insert([held(id=ended.id, data=b"0")]) == [PutAnswer.CONFLICT]
        assert await master.get([ended.id]) == [ended]

    @pytest.mark.asyncio
    async def test_what_should_be_at_an_agent_is_given_in_pages(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.insert([item := dispatching(), dispatching(agent="transport-2"), held(agent="transport-1")])
        there = [sample(state, version=5) for state in (JobState.QUEUED, JobState.RUNNING)]
        await master.copy("transport-1", [*there, sample(JobState.QUEUED, agent="transport-2")])
        await master.apply("transport-1", [record(sample(JobState.SUCCEEDED))])
        jobs = sorted([item.job, *there], key=lambda job: job.id)
        expected = [(job.id, job.epoch, job.version) for job in jobs]
        first = await master.on_agent("transport-1", "", 2)
        assert [(entry.id, entry.epoch, entry.version) for entry in first] == expected[:2]
        rest = await master.on_agent("transport-1", first[-1].id, 2)
        assert [(entry.id, entry.epoch, entry.version) for entry in rest] == expected[2:]
        assert await master.on_agent("transport-3", "", 2) == []

    @pytest.mark.asyncio
    async def test_a_job_begins_in_no_other_state(self, store: MasterHarness) -> None:
        master = await store.open()
        good = held()
        for bad in (
            Placement(sample(JobState.QUEUED)),
            Placement(sample(JobState.SUCCEEDED)),
            Placement(sample(JobState.DISPATCHING, agent=None)),
        ):
            with pytest.raises(IllegalMove):
                await master.insert([good, bad])
        assert await master.get([good.job.id]) == [None]

    @pytest.mark.asyncio
    async def test_many_jobs_are_inserted_at_once(self, store: MasterHarness) -> None:
        master = await store.open()
        items = [held(due_us=1_800_000_000_000_000 + n) for n in range(1_203)]
        assert await master.insert(items) == [PutAnswer.STORED] * 1_203
        assert await master.due(FAR, 2_000) == [item.job for item in items]
        assert await master.insert([]) == []

    @pytest.mark.asyncio
    async def test_due_gives_held_jobs_soonest_first(self, store: MasterHarness) -> None:
        master = await store.open()
        late, soon, awaiting = held(due_us=300), held(due_us=100), Placement(sample(JobState.AWAITING, due_us=50))
        middle = held(due_us=200)
        await master.insert([late, soon, awaiting, middle, dispatching(due_us=10)])
        assert await master.due(200, 10) == [soon.job, middle.job]
        assert await master.due(199, 10) == [soon.job]
        assert await master.due(FAR, 2) == [soon.job, middle.job]
        assert await master.due(FAR, 0) == []

    @pytest.mark.asyncio
    async def test_two_coordinators_hand_off_what_is_due_once_and_by_its_route(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        free = [held(due_us=100 + n) for n in range(30)]
        mails = held(due_us=90, lane="mails")
        bound, left, foreign = (held(due_us=80, agent=name) for name in ("one", "leaving", "elsewhere"))
        late = held(due_us=201)
        await one.insert([*free, mails, bound, left, foreign, late])
        routes = Routes(
            agents={"one": 5, "two": 6}, instead={"leaving": None}, draws=("one", "two"), lane_draws={"mails": ("two",)}
        )
        found = await asyncio.gather(*(master.hand_off(200, 20, routes) for master in (one, two)))
        found += [await one.hand_off(200, 20, routes)]
        while found[-1].seen == 20:
            found.append(await one.hand_off(200, 20, routes))
        placed = {item.job.id: item for each in found for item in each.placements}
        assert sum(len(each.placements) for each in found) == len(placed) == 33
        assert {job_id: item.job for job_id, item in placed.items()} == {
            job.id: job for job in await one.get([*placed]) if job is not None
        }
        assert {(item.job.state, item.job.epoch, item.job.version) for item in placed.values()} == {
            (JobState.DISPATCHING, 1, 2)
        }
        assert {item.put_deadline_us for item in placed.values() if item.job.agent == "two"} == {6}
        assert {placed[item.job.id].job.agent for item in free} == {"one", "two"}
        assert [placed[item.job.id].job.agent for item in (mails, bound)] == ["two", "one"]
        assert left.job.id in placed
        assert await one.due(FAR, 10) == [foreign.job, late.job]

    @pytest.mark.asyncio
    async def test_a_held_job_is_handed_to_one_of_two_coordinators(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        items = [held() for _ in range(20)]
        await one.insert(items)
        moves = [Dispatch(item.job.id, 1, "transport-1", 5) for item in items]
        first, second = await asyncio.gather(one.dispatch(moves), two.dispatch(moves[::-1]))
        won = [item for item in [*first, *second] if item is not None]
        assert sorted(item.job.id for item in won) == sorted(item.job.id for item in items)
        assert {(item.job.state, item.job.epoch, item.job.version, item.job.agent) for item in won} == {
            (JobState.DISPATCHING, 1, 2, "transport-1")
        }

    @pytest.mark.asyncio
    async def test_a_dispatched_job_carries_its_deadlines(self, store: MasterHarness) -> None:
        master = await store.open()
        item = held(claim_seq=9, epoch=4)
        await master.insert([item])
        before = await master.store_now_us()
        (placed,) = await master.dispatch([Dispatch(item.job.id, 1, "transport-1", 77)])
        assert placed is not None
        assert placed.put_deadline_us == 77
        assert placed.dispatch_until_us is not None
        assert 0 <= placed.dispatch_until_us - before - 30 * SECOND < 5 * SECOND
        assert (placed.job.epoch, placed.job.claim_seq) == (5, 0)
        assert await master.get([item.job.id]) == [placed.job]
        assert await master.due(FAR, 10) == []

    @pytest.mark.asyncio
    async def test_dispatch_refuses_another_version_state_or_id(self, store: MasterHarness) -> None:
        master = await store.open()
        item, awaiting = held(version=3), Placement(sample(JobState.AWAITING))
        await master.insert([item, awaiting])
        stale = Dispatch(item.job.id, 2, "transport-1", 5)
        moves = [stale, Dispatch(awaiting.job.id, 1, "transport-1", 5), Dispatch(new_id(), 1, "transport-1", 5)]
        assert await master.dispatch(moves) == [None, None, None]
        right = Dispatch(item.job.id, 3, "transport-1", 5)
        first, again = await master.dispatch([right, right])
        assert first is not None
        assert again is None

    @pytest.mark.asyncio
    async def test_an_overdue_hand_off_is_taken_over_by_one(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        now_us = await one.store_now_us()
        late = [dispatching(now_us - SECOND) for _ in range(10)]
        elsewhere, fresh = dispatching(now_us - SECOND, agent="transport-2"), dispatching(now_us + 60 * SECOND)
        await one.insert([*late, elsewhere, fresh])
        first, second = await asyncio.gather(one.overdue("transport-1", 100), two.overdue("transport-1", 100))
        taken = [*first, *second]
        assert sorted(item.job.id for item in taken) == sorted(item.job.id for item in late)
        for item in taken:
            assert item.dispatch_until_us is not None
            assert item.dispatch_until_us > now_us + 20 * SECOND
            assert (item.job.epoch, item.job.version, item.job.agent) == (1, 1, "transport-1")
            assert item.put_deadline_us == 1_800_000_600_000_000
        assert await two.overdue("transport-1", 100) == []
        assert [item.job.id for item in await two.overdue("transport-2", 1)] == [elsewhere.job.id]

    @pytest.mark.asyncio
    async def test_overdue_keeps_to_its_limit(self, store: MasterHarness) -> None:
        master = await store.open()
        now_us = await master.store_now_us()
        await master.insert([dispatching(now_us - SECOND * n) for n in range(1, 8)])
        sizes = [len(await master.overdue("transport-1", 3)) for _ in range(4)]
        assert sizes == [3, 3, 1, 0]

    @pytest.mark.asyncio
    async def test_a_hand_off_without_a_given_end_gets_one(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.insert([dispatching(None)])
        assert await master.overdue("transport-1", 10) == []

    @pytest.mark.asyncio
    async def test_the_third_write_of_a_hand_off_leaves_the_version(self, store: MasterHarness) -> None:
        master = await store.open()
        item, other = dispatching(epoch=2, version=5), dispatching(epoch=3)
        await master.insert([item, other])
        ids = [(item.job.id, 2), (other.job.id, 2), (new_id(), 1)]
        assert await master.dispatched(ids) == 1
        assert await master.dispatched(ids) == 0
        assert await master.get([item.job.id, other.job.id]) == [replace(item.job, state=JobState.QUEUED), other.job]
        await store.advance(31)
        assert [late.job.id for late in await master.overdue("transport-1", 10)] == [other.job.id]

    @pytest.mark.asyncio
    async def test_cancelling_ends_what_the_master_holds(self, store: MasterHarness) -> None:
        master = await store.open()
        item, awaiting = held(), Placement(sample(JobState.AWAITING))
        away, queued = dispatching(), sample(JobState.QUEUED)
        ended = sample(JobState.SUCCEEDED)
        await master.insert([item, awaiting, away])
        await master.copy("transport-1", [queued])
        await master.apply("transport-1", [record(ended)])
        ids = [item.job.id, awaiting.job.id, away.job.id, queued.id, ended.id, new_id(), item.job.id]
        assert await master.cancel(ids) == [
            HeldAnswer.CHANGED,
            HeldAnswer.CHANGED,
            HeldAnswer.ELSEWHERE,
            HeldAnswer.ELSEWHERE,
            HeldAnswer.REFUSED,
            HeldAnswer.UNKNOWN,
            HeldAnswer.REFUSED,
        ]
        (job,) = await master.get([item.job.id])
        assert job is not None
        assert (job.state, job.version) == (JobState.CANCELLED, 2)
        assert job.finished_us is not None
        assert await master.due(FAR, 10) == []

    @pytest.mark.asyncio
    async def test_amending_changes_only_what_is_given_at_the_expected_version(self, store: MasterHarness) -> None:
        master = await store.open()
        item = held()
        await master.insert([item])
        change = Amendment(id=item.job.id, version=1, due_us=123, priority=0)
        assert await master.amend([change, change]) == [AmendAnswer.CHANGED, AmendAnswer.CONFLICT]
        changed = replace(item.job, version=2, due_us=123, priority=0)
        assert await master.get([item.job.id]) == [changed]
        assert await master.amend([Amendment(id=item.job.id, version=2, lane="mails", data=b"[]")]) == [
            AmendAnswer.CHANGED
        ]
        assert await master.get([item.job.id]) == [replace(changed, version=3, lane="mails", data=b"[]")]
        assert [job.due_us for job in await master.due(123, 5)] == [123]

    @pytest.mark.asyncio
    async def test_amending_says_why_it_cannot(self, store: MasterHarness) -> None:
        master = await store.open()
        away, running, ended = dispatching(), sample(JobState.RUNNING, version=3), sample(JobState.SUCCEEDED)
        await master.insert([away])
        await master.copy("transport-1", [running])
        await master.apply("transport-1", [record(ended)])
        items = [
            Amendment(id=job_id, version=version, due_us=1)
            for job_id, version in [(away.job.id, 1), (running.id, 3), (ended.id, 4), (new_id(), 1)]
        ]
        assert await master.amend(items) == [
            AmendAnswer.CONFLICT,
            AmendAnswer.RUNNING,
            AmendAnswer.CONFLICT,
            AmendAnswer.UNKNOWN,
        ]

    @pytest.mark.asyncio
    async def test_a_redriven_job_is_held_again_and_keeps_its_runs(self, store: MasterHarness) -> None:
        master = await store.open()
        failed = _failed()
        await master.apply("transport-1", [record(failed, run=run_of(failed))])
        assert await master.redrive([failed.id], 500, fresh=False) == [HeldAnswer.CHANGED]
        (job,) = await master.get([failed.id])
        assert job is not None
        assert (job.state, job.reason, job.version, job.epoch, job.due_us) == (JobState.HELD, None, 10, 2, 500)
        assert (job.finished_us, job.result, job.suspect, job.attempts, job.crash_count) == (None, None, False, 4, 1)
        assert len(await master.runs(failed.id)) == 1
        assert await master.due(500, 10) == [job]
        (placed,) = await master.dispatch([Dispatch(failed.id, 10, "transport-1", 5)])
        assert placed is not None
        assert (placed.job.epoch, placed.job.version) == (3, 11)

    @pytest.mark.asyncio
    async def test_a_fresh_redrive_starts_the_counters_anew(self, store: MasterHarness) -> None:
        master = await store.open()
        failed = _failed(snoozes=3, interrupts=2, expires_us=400)
        await master.apply("transport-1", [record(failed)])
        await master.redrive([failed.id], 500, fresh=True)
        (job,) = await master.get([failed.id])
        assert job is not None
        assert (job.attempts, job.crash_count, job.snoozes, job.interrupts) == (0, 0, 0, 0)
        assert job.expires_us is None

    @pytest.mark.asyncio
    async def test_redrive_refuses_what_did_not_fail(self, store: MasterHarness) -> None:
        master = await store.open()
        done, failed, away, waiting = sample(JobState.SUCCEEDED), _failed(), dispatching(), held()
        await master.apply("transport-1", [record(done), record(failed, seq=2)])
        await master.insert([away, waiting])
        ids = [done.id, failed.id, failed.id, away.job.id, waiting.job.id, new_id()]
        assert await master.redrive(ids, 5, fresh=False) == [
            HeldAnswer.REFUSED,
            HeldAnswer.CHANGED,
            HeldAnswer.REFUSED,
            HeldAnswer.ELSEWHERE,
            HeldAnswer.REFUSED,
            HeldAnswer.UNKNOWN,
        ]

    @pytest.mark.asyncio
    async def test_a_record_from_before_a_redrive_changes_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        failed = _failed()
        await master.apply("transport-1", [record(failed, run=run_of(failed))])
        await master.redrive([failed.id], 500, fresh=False)
        await master.apply("transport-1", [record(failed, run=run_of(failed))])
        (job,) = await master.get([failed.id])
        assert job is not None
        assert job.state is JobState.HELD


def _failed(**fields: object) -> Job:
    defaults: dict[str, object] = {
        "epoch": 2,
        "version": 9,
        "reason": FailReason.CRASHED,
        "attempts": 4,
        "crash_count": 1,
        "suspect": True,
        "result": b"1",
    }
    return sample(JobState.FAILED, **(defaults | fields))
