"""The master contract: what agents report. Stale copies are refused, replays change nothing, a run is recorded once."""

import asyncio
import itertools

import msgspec
import pytest
from msgspec.structs import replace

from jobmaster.contracts.entries import ApplyAnswer, MoveReport
from jobmaster.contracts.values import JobFilter, OutboxRecord, RecordKind, Revoke, RevokeKind
from jobmaster.model.errors import StoreError
from jobmaster.model.ids import new_id
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason, JobState
from jobmaster.telemetry.probes import probes
from jobmaster.testing.masters.harness import MasterHarness, dispatching, held, record, run_of, sample

APPLIED, OLD, QUARANTINED = ApplyAnswer.APPLIED, ApplyAnswer.OLD, ApplyAnswer.QUARANTINED


class IntakeCases:
    @pytest.mark.asyncio
    async def test_a_terminal_record_ends_in_the_history_with_its_run(self, store: MasterHarness) -> None:
        master = await store.open()
        job = sample(JobState.SUCCEEDED, result=b'"ok"')
        run = run_of(job, error="E: x", detail=b'{"note":"n"}')
        assert await master.apply("transport-1", [record(job, run=run)]) == [APPLIED]
        assert await master.get([job.id]) == [job]
        assert await master.runs(job.id) == [run]

    @pytest.mark.asyncio
    async def test_replaying_records_changes_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        job = sample(JobState.RUNNING, version=3)
        retried = replace(job, state=JobState.QUEUED, version=4, attempts=1)
        ended = replace(sample(JobState.FAILED, id=job.id), version=8)
        batch = [
            record(retried, 1, run=run_of(job, 1, outcome=RunOutcome.RETRY_AT)),
            record(ended, 2, run=run_of(job, 2, outcome=RunOutcome.FAILED)),
        ]
        assert await master.apply("transport-1", batch) == [APPLIED, APPLIED]
        before = await master.get([job.id]), await master.runs(job.id), await master.counts(100)
        assert await master.apply("transport-1", batch) == [OLD, OLD]
        assert await master.apply("transport-1", batch[::-1]) == [OLD, OLD]
        assert (await master.get([job.id]), await master.runs(job.id), await master.counts(100)) == before

    @pytest.mark.asyncio
    async def test_records_may_arrive_in_any_order_and_cut(self, store: MasterHarness) -> None:
        master = await store.open()
        for cuts in itertools.permutations(range(3)):
            job = sample(JobState.QUEUED)
            steps = [
                record(replace(job, version=3, attempts=1), 1, run=run_of(job, 1, outcome=RunOutcome.RETRY_AT)),
                record(replace(job, version=5, attempts=2), 2, run=run_of(job, 2, outcome=RunOutcome.RETRY_AT)),
                record(sample(JobState.SUCCEEDED, id=job.id, version=7), 3, run=run_of(job, 3)),
            ]
            for index in cuts:
                await master.apply("transport-1", [steps[index]])
            (known,) = await master.get([job.id])
            assert known is not None
            assert (known.state, known.version) == (JobState.SUCCEEDED, 7)
            assert [run.token & 0xFF for run in await master.runs(job.id)] == [1, 2, 3]

    @pytest.mark.asyncio
    async def test_several_records_of_one_job_fold_to_the_newest(self, store: MasterHarness) -> None:
        master = await store.open()
        job = sample(JobState.QUEUED, version=3)
        newest = replace(job, version=9, attempts=2)
        batch = [
            record(job, 1, run=run_of(job, 1)),
            record(newest, 2, run=run_of(job, 2)),
            record(replace(job, version=6), 3, run=run_of(job, 3)),
        ]
        assert await master.apply("transport-1", batch) == [APPLIED] * 3
        assert await master.get([job.id]) == [newest]
        assert len(await master.runs(job.id)) == 3

    @pytest.mark.asyncio
    async def test_a_higher_epoch_beats_a_higher_version(self, store: MasterHarness) -> None:
        master = await store.open()
        first = sample(JobState.SUCCEEDED, epoch=1, version=50)
        await master.apply("transport-1", [record(first)])
        moved = sample(JobState.QUEUED, id=first.id, epoch=2, version=3)
        assert await master.apply("transport-2", [record(moved)]) == [APPLIED]
        assert await master.get([first.id]) == [moved]
        assert [(count.state, count.count) for count in await master.counts(10)] == [(JobState.QUEUED, 1)]
        assert await master.apply("transport-1", [record(first)]) == [OLD]
        assert await master.get([first.id]) == [moved]

    @pytest.mark.asyncio
    async def test_a_run_of_an_old_epoch_is_recorded_all_the_same(self, store: MasterHarness) -> None:
        master = await store.open()
        done = sample(JobState.SUCCEEDED, epoch=2, version=9)
        await master.apply("transport-2", [record(done, run=run_of(done))])
        late = sample(JobState.FAILED, id=done.id, epoch=1, version=5)
        assert await master.apply("transport-1", [record(late, run=run_of(late))]) == [APPLIED]
        assert await master.get([done.id]) == [done]
        assert len(await master.runs(done.id)) == 2

    @pytest.mark.asyncio
    async def test_a_run_is_recorded_once_and_never_changed(self, store: MasterHarness) -> None:
        master = await store.open()
        job = sample(JobState.SUCCEEDED)
        run = run_of(job)
        await master.apply("transport-1", [record(job, run=run), record(job, run=replace(run, host="other"))])
        await master.apply("transport-1", [record(job, run=replace(run, worker="other"))])
        assert await master.runs(job.id) == [run]

    @pytest.mark.asyncio
    async def test_an_agents_record_updates_the_dispatching_row(self, store: MasterHarness) -> None:
        master = await store.open()
        item = dispatching(epoch=1, version=2)
        await master.insert([item])
        running = replace(item.job, state=JobState.RUNNING, version=3)
        assert await master.apply("transport-1", [record(running)]) == [APPLIED]
        assert await master.dispatched([(item.job.id, 1)]) == 0
        assert await master.get([item.job.id]) == [running]
        await store.advance(31)
        assert await master.overdue("transport-1", 10) == []

    @pytest.mark.asyncio
    async def test_a_moved_job_is_held_again(self, store: MasterHarness) -> None:
        master = await store.open()
        item = dispatching(epoch=1, version=2, due_us=5)
        await master.insert([item])
        back = replace(item.job, state=JobState.HELD, version=3)
        revoke = Revoke(item.job.id, 1, RevokeKind.MOVE)
        assert await master.apply("transport-1", [record(back, kind=RecordKind.EFFECT, revoked=revoke)]) == [APPLIED]
        assert await master.due(5, 10) == [back]

    @pytest.mark.asyncio
    @pytest.mark.parametrize("kind", [RevokeKind.MOVE, RevokeKind.CANCEL])
    async def test_the_revocation_of_an_id_never_seen_applies_to_exactly_its_epoch(
        self, store: MasterHarness, kind: RevokeKind
    ) -> None:
        master = await store.open()
        item, queued = dispatching(epoch=2, version=7), dispatching(epoch=2)
        later, earlier = dispatching(epoch=3), dispatching(epoch=1)
        waiting, ended = held(epoch=2), sample(JobState.SUCCEEDED, epoch=2)
        await master.insert([item, queued, later, earlier, waiting])
        await master.dispatched([(queued.job.id, 2)])
        await master.apply("transport-1", [record(ended)])
        ids = [item.job.id, queued.job.id, later.job.id, earlier.job.id, waiting.job.id, ended.id, new_id()]
        batch = [
            record(None, seq, RecordKind.EFFECT, revoked=Revoke(job_id, 2, kind)) for seq, job_id in enumerate(ids)
        ]
        assert await master.apply("transport-1", batch) == [APPLIED, APPLIED, *[OLD] * 5]
        assert await master.apply("transport-1", batch) == [OLD] * 7
        expected = JobState.HELD if kind is RevokeKind.MOVE else JobState.CANCELLED
        one, two, *others = await master.get(ids)
        assert one is not None
        assert two is not None
        assert (one.state, one.epoch, one.version, two.state) == (expected, 2, 8, expected)
        assert others == [later.job, earlier.job, waiting.job, ended, None]

    @pytest.mark.asyncio
    async def test_a_job_that_ran_on_a_lost_store_is_held_again_or_ends(self, store: MasterHarness) -> None:
        master = await store.open()
        once = msgspec.json.encode(Policy(at_most_once=True))
        started = {"epoch": 2, "version": 5, "claim_seq": 3, "started_us": 7, "first_started_us": 7, "worker": "w"}
        again = sample(JobState.RUNNING, **started)
        unstarted = sample(JobState.RUNNING, epoch=2, version=5, claim_seq=1, policy=once)
        never = sample(JobState.RUNNING, policy=once, **started)
        await master.copy("transport-1", [again, unstarted, never])
        batch = [
            record(None, seq, RecordKind.EFFECT, revoked=Revoke(job.id, 2, RevokeKind.MOVE))
            for seq, job in enumerate((again, unstarted, never))
        ]
        assert await master.apply("transport-1", batch) == [APPLIED] * 3
        assert await master.apply("transport-1", batch) == [OLD] * 3
        first, second, third = await master.get([again.id, unstarted.id, never.id])
        assert first is not None
        assert second is not None
        assert third is not None
        assert (first.state, first.epoch, first.interrupts, first.suspect) == (JobState.HELD, 2, 1, False)
        assert (second.state, second.interrupts) == (JobState.HELD, 0)
        assert (third.state, third.reason) == (JobState.FAILED, FailReason.CRASHED)
        (cut,) = await master.runs(again.id)
        assert (cut.token, cut.outcome) == (again.token, RunOutcome.INTERRUPTED)
        assert await master.runs(unstarted.id) == []

    @pytest.mark.asyncio
    async def test_one_bad_record_is_quarantined_and_the_others_applied(self, store: MasterHarness) -> None:
        master = await store.open()
        good = [sample(JobState.SUCCEEDED) for _ in range(11)]
        bad = sample(JobState.SUCCEEDED, finished_us=None)
        batch = [record(job, seq, run=run_of(job)) for seq, job in enumerate([*good[:7], bad, *good[7:]], 1)]
        before = probes()["quarantined"]
        answers = await master.apply("transport-1", batch)
        assert answers == [APPLIED] * 7 + [QUARANTINED] + [APPLIED] * 4
        assert await master.get([job.id for job in good]) == good
        assert await master.get([bad.id]) == [None]
        assert await master.runs(bad.id) == []
        (entry,) = await master.quarantined(10)
        assert (entry.agent, entry.seq) == ("transport-1", 8)
        assert entry.error
        assert bad.id.encode() in entry.raw
        assert probes()["quarantined"] == before + 1

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "fields",
        [
            {"state": "bogus"},
            {"state": JobState.FAILED, "reason": None},
            {"reason": FailReason.CRASHED},
            {"state": JobState.FAILED, "reason": "bad luck"},
            {"finished_us": None},
            {"state": JobState.RUNNING},
            {"version": 0},
            {"version": 2**63},
            {"epoch": -1},
            {"id": "42"},
        ],
        ids=str,
    )
    async def test_what_breaks_a_rule_is_quarantined(self, store: MasterHarness, fields: dict[str, object]) -> None:
        master = await store.open()
        good = sample(JobState.SUCCEEDED)
        bad = replace(sample(JobState.SUCCEEDED), **fields)
        assert await master.apply("transport-1", [record(bad, 5), record(good, 6)]) == [QUARANTINED, APPLIED]
        assert await master.get([good.id]) == [good]
        assert [entry.seq for entry in await master.quarantined(10)] == [5]

    @pytest.mark.asyncio
    async def test_a_record_is_applied_whole_or_not_at_all(self, store: MasterHarness) -> None:
        master = await store.open()
        job = sample(JobState.SUCCEEDED)
        assert await master.apply("transport-1", [record(job, run=run_of(job, token=-1))]) == [QUARANTINED]
        assert await master.get([job.id]) == [None]
        assert await master.runs(job.id) == []

    @pytest.mark.asyncio
    async def test_what_could_not_be_read_is_quarantined_as_it_was_stored(self, store: MasterHarness) -> None:
        master = await store.open()
        assert await master.apply("transport-1", [record(None, 9, raw=b"\xff\x00 rubbish")]) == [QUARANTINED]
        assert await master.apply("transport-1", [record(None, 10, raw=b"more")]) == [QUARANTINED]
        assert await master.apply("transport-1", [record(None, 9, raw=b"\xff\x00 rubbish")]) == [QUARANTINED]
        entries = {entry.seq: entry.raw for entry in await master.quarantined(10)}
        assert entries == {9: b"\xff\x00 rubbish", 10: b"more"}
        assert len(await master.quarantined(1)) == 1

    @pytest.mark.asyncio
    async def test_copies_are_written_only_where_newer(self, store: MasterHarness) -> None:
        master = await store.open()
        running, queued = sample(JobState.RUNNING, version=4), sample(JobState.QUEUED, version=2)
        assert await master.copy("transport-1", [running, queued]) == 2
        assert await master.copy("transport-1", [running, replace(queued, version=1)]) == 0
        newer = replace(queued, version=3, state=JobState.RUNNING)
        assert await master.copy("transport-1", [running, newer]) == 1
        assert await master.get([running.id, queued.id]) == [running, newer]
        assert await master.copy("transport-1", []) == 0

    @pytest.mark.asyncio
    async def test_a_copy_never_brings_an_ended_job_back(self, store: MasterHarness) -> None:
        master = await store.open()
        ended = sample(JobState.SUCCEEDED, version=6)
        await master.apply("transport-1", [record(ended)])
        late = [sample(JobState.RUNNING, id=ended.id, version=version) for version in (5, 6)]
        assert await master.copy("transport-1", late) == 0
        assert await master.apply("transport-1", [record(late[0])]) == [OLD]
        assert await master.get([ended.id]) == [ended]
        page = await master.page(JobFilter(), None, 10)
        assert page.jobs == [ended]
        assert await master.sweep(100) == 0

    @pytest.mark.asyncio
    async def test_a_large_batch_is_applied_whole(self, store: MasterHarness) -> None:
        master = await store.open()
        jobs = [sample(JobState.SUCCEEDED) for _ in range(1_100)]
        records = [record(job, seq, run=run_of(job)) for seq, job in enumerate(jobs)]
        assert await master.apply("transport-1", records) == [APPLIED] * 1_100
        assert await master.get([job.id for job in jobs]) == jobs
        assert await master.apply("transport-1", []) == []


class MoveCases:
    """What a master does for an agent that lives in its own database."""

    @pytest.mark.asyncio
    async def test_plain_records_move_into_history_and_runs(self, store: MasterHarness) -> None:
        master = await store.open()
        done = [sample(JobState.SUCCEEDED, result=b"1", progress=100, suspect=True) for _ in range(5)]
        waiting = sample(JobState.QUEUED, version=4)
        records = [record(job, seq, run=run_of(job)) for seq, job in enumerate(done, 1)]
        records.append(record(waiting, 6, run=run_of(waiting, outcome=RunOutcome.RETRY_AT)))
        outbox = await filled(store, records)
        assert await master.move("transport-1", outbox, 4) == MoveReport(moved=4, more=True)
        assert await master.move("transport-1", outbox, 4) == MoveReport(moved=2)
        assert await master.move("transport-1", outbox, 4) == MoveReport()
        assert await master.get([job.id for job in done]) == done
        # Still on the agent, in this very database: nobody needs a copy here.
        assert await master.get([waiting.id]) == [None]
        assert [len(await master.runs(job.id)) for job in [*done, waiting]] == [1] * 6

    @pytest.mark.asyncio
    async def test_effect_records_stay_and_are_counted(self, store: MasterHarness) -> None:
        master = await store.open()
        plain = [sample(JobState.SUCCEEDED) for _ in range(2)]
        effects = [sample(JobState.SUCCEEDED, effects=True) for _ in range(2)]
        jobs = [effects[0], plain[0], effects[1], plain[1]]
        kinds = [RecordKind.EFFECT, RecordKind.PLAIN] * 2
        outbox = await filled(store, [record(job, seq, kinds[seq - 1]) for seq, job in enumerate(jobs, 1)])
        assert await master.move("transport-1", outbox, 10) == MoveReport(moved=2, effects=2)
        assert await master.move("transport-1", outbox, 10) == MoveReport(moved=0, effects=2)
        assert await master.get([job.id for job in jobs]) == [None, plain[0], None, plain[1]]

    @pytest.mark.asyncio
    async def test_a_move_ends_the_live_row(self, store: MasterHarness) -> None:
        master = await store.open()
        item = dispatching(epoch=1, version=2)
        await master.insert([item])
        await master.dispatched([(item.job.id, 1)])
        ended = sample(JobState.SUCCEEDED, id=item.job.id, version=4)
        outbox = await filled(store, [record(ended, run=run_of(ended))])
        await master.move("transport-1", outbox, 10)
        assert (await master.page(JobFilter(), None, 10)).jobs == [ended]
        assert [(count.state, count.count) for count in await master.counts(10)] == [(JobState.SUCCEEDED, 1)]

    @pytest.mark.asyncio
    async def test_a_move_refuses_old_records_but_takes_their_runs(self, store: MasterHarness) -> None:
        master = await store.open()
        failed = sample(JobState.FAILED, version=5)
        done = sample(JobState.SUCCEEDED, epoch=2, version=9)
        await master.apply("transport-1", [record(failed), record(done, 2)])
        await master.redrive([failed.id], 100, fresh=False)
        late = sample(JobState.FAILED, id=done.id, epoch=1, version=20)
        outbox = await filled(store, [record(failed, 1), record(late, 2, run=run_of(late))])
        assert await master.move("transport-1", outbox, 10) == MoveReport(moved=2)
        redriven, known = await master.get([failed.id, done.id])
        assert redriven is not None
        assert redriven.state is JobState.HELD
        assert known == done
        assert len(await master.runs(done.id)) == 1

    @pytest.mark.asyncio
    async def test_a_newer_end_replaces_an_older_one(self, store: MasterHarness) -> None:
        master = await store.open()
        old = sample(JobState.FAILED, version=5)
        new = sample(JobState.SUCCEEDED, id=old.id, epoch=2, version=3)
        outbox = await filled(store, [record(new, 1), record(old, 2)])
        await master.move("transport-1", outbox, 1)
        await master.move("transport-1", outbox, 1)
        assert await master.get([old.id]) == [new]

    @pytest.mark.asyncio
    async def test_several_ends_of_a_job_in_one_batch_come_to_the_newest(self, store: MasterHarness) -> None:
        master = await store.open()
        first = sample(JobState.FAILED, version=5)
        second = sample(JobState.SUCCEEDED, id=first.id, epoch=2, version=3)
        between = sample(JobState.FAILED, id=first.id, version=6)
        other = sample(JobState.SUCCEEDED)
        jobs = [first, second, between, other]
        records = [record(job, seq, run=run_of(job, claim_seq=seq)) for seq, job in enumerate(jobs, 1)]
        records.append(record(second, 5, run=run_of(second, claim_seq=2)))
        outbox = await filled(store, records)
        assert await master.move("transport-1", outbox, 10) == MoveReport(moved=5)
        assert await master.get([first.id, other.id]) == [second, other]
        assert [run.token & 0xFFFFFFFF for run in await master.runs(first.id)] == [1, 3, 2]
        assert await master.move("transport-1", outbox, 10) == MoveReport()

    @pytest.mark.asyncio
    async def test_a_bad_row_does_not_stop_those_behind_it(self, store: MasterHarness) -> None:
        master = await store.open()
        good = [sample(JobState.SUCCEEDED) for _ in range(9)]
        bad = sample(JobState.FAILED, reason=None)
        records = [record(job, seq, run=run_of(job)) for seq, job in enumerate([*good[:4], bad, *good[4:]], 1)]
        outbox = await filled(store, records)
        assert await master.move("transport-1", outbox, 100) == MoveReport(moved=9)
        assert await master.get([job.id for job in good]) == good
        assert await master.get([bad.id]) == [None]
        (entry,) = await master.quarantined(5)
        assert (entry.agent, entry.seq) == ("transport-1", 5)
        assert bad.id.encode() in entry.raw
        assert await master.move("transport-1", outbox, 100) == MoveReport()

    @pytest.mark.asyncio
    async def test_a_table_name_is_not_a_statement(self, store: MasterHarness) -> None:
        master = await store.open()
        with pytest.raises((StoreError, ValueError)):
            await master.move("transport-1", "x; DROP TABLE job", 1)

    @pytest.mark.asyncio
    async def test_a_cursor_moves_with_the_records_it_stands_for(self, store: MasterHarness) -> None:
        master, agent = await store.open(), new_id()
        first, second = sample(JobState.SUCCEEDED), sample(JobState.SUCCEEDED)
        assert await master.cursor(agent) == 0

        assert await master.apply(agent, [record(first, 7)], 0) == [APPLIED]
        assert await master.apply(agent, [record(second, 9)], 0) == []

        assert await master.get([first.id, second.id]) == [first, None]
        assert await master.cursor(agent) == 7
        assert await master.cursor(agent + "-b") == 0
        assert await master.apply(agent, [record(second, 9)], 7) == [APPLIED]
        assert await master.apply(agent, [record(second, 9)], 9) == [OLD]
        assert await master.cursor(agent) == 9
        # A store that was reconciled may count on from elsewhere.
        assert await master.apply(agent, [record(second, 5)], 9) == [OLD]
        assert await master.cursor(agent) == 5

    @pytest.mark.asyncio
    async def test_of_two_who_read_the_same_records_one_applies_them(self, store: MasterHarness) -> None:
        masters, agent = [await store.open() for _ in range(2)], new_id()
        for round_trip in range(10):
            after = await masters[0].cursor(agent)
            batch = [record(sample(JobState.SUCCEEDED), after + 1)]
            answers = await asyncio.gather(*(master.apply(agent, batch, after) for master in masters))
            assert sorted(answers) == [[], [APPLIED]], round_trip

    @pytest.mark.asyncio
    async def test_a_cursor_moves_past_a_record_that_goes_into_the_quarantine(self, store: MasterHarness) -> None:
        master, agent = await store.open(), new_id()
        good = sample(JobState.SUCCEEDED)
        batch = [OutboxRecord(seq=3, kind=RecordKind.PLAIN, at_us=1, job=None, raw=b"?"), record(good, 4)]
        assert await master.apply(agent, batch, 0) == [QUARANTINED, APPLIED]
        assert await master.cursor(agent) == 4


async def filled(store: MasterHarness, records: list[OutboxRecord]) -> str:
    """The outbox table with these records, or the test is skipped."""
    outbox = await store.outbox(records)
    if outbox is None:
        pytest.skip("no agent can live in this master's database")
    return outbox
