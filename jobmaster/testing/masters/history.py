"""The master contract: pages, counts, deleting and pruning."""

import asyncio
from collections import Counter

import pytest

from jobmaster.contracts.entries import Event, Expiry, HeldAnswer, StateCount
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import JobFilter
from jobmaster.model.errors import OptionInvalid
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.policy import Labels
from jobmaster.model.states import JobState
from jobmaster.testing.masters.harness import (
    SECOND,
    MasterHarness,
    dispatching,
    held,
    planning,
    record,
    run_of,
    sample,
    schedule,
)


class HistoryCases:
    @pytest.mark.asyncio
    async def test_pages_are_newest_first_and_complete(self, store: MasterHarness) -> None:
        master = await store.open()
        jobs = await _filled(master)
        for limit in (1, 3, 7, 100):
            assert await pages(master, JobFilter(), limit) == jobs[::-1]

    @pytest.mark.asyncio
    async def test_pages_stay_stable_while_jobs_arrive(self, store: MasterHarness) -> None:
        master = await store.open()
        jobs = await _filled(master)
        first = await master.page(JobFilter(), None, 5)
        later = [held(), held()]
        await master.insert(later)
        await master.apply("transport-1", [record(sample(JobState.SUCCEEDED))])
        rest = await pages(master, JobFilter(), 5, first.cursor)
        assert first.jobs + rest == jobs[::-1]

    @pytest.mark.asyncio
    async def test_a_job_that_ends_between_two_pages_is_seen_once(self, store: MasterHarness) -> None:
        master = await store.open()
        jobs = [sample(JobState.QUEUED) for _ in range(6)]
        await master.copy("transport-1", jobs)
        first = await master.page(JobFilter(), None, 3)
        ended = [sample(JobState.SUCCEEDED, id=job.id, version=9) for job in jobs]
        await master.apply("transport-1", [record(job, seq) for seq, job in enumerate(ended)])
        rest = await pages(master, JobFilter(), 3, first.cursor)
        assert [job.id for job in first.jobs + rest] == [job.id for job in jobs[::-1]]

    @pytest.mark.asyncio
    async def test_every_condition_of_a_filter_holds(self, store: MasterHarness) -> None:
        master = await store.open()
        jobs = await _filled(master)
        filters = [
            JobFilter(handler="send-invoice"),
            JobFilter(lane="mails"),
            JobFilter(agent="transport-2"),
            JobFilter(schedule="nightly"),
            JobFilter(since_us=1_800_000_000_000_010),
            JobFilter(states=frozenset({JobState.SUCCEEDED})),
            JobFilter(states=frozenset({JobState.FAILED})),
            JobFilter(states=frozenset({JobState.FAILED, JobState.CANCELLED})),
            JobFilter(states=frozenset({JobState.HELD, JobState.FAILED})),
            JobFilter(states=frozenset({JobState.HELD}), lane="mails"),
            JobFilter(states=frozenset({JobState.HELD, JobState.QUEUED}), lane="mails"),
            JobFilter(states=frozenset({JobState.SUCCEEDED}), handler="send-invoice", lane="mails"),
            JobFilter(states=frozenset({JobState.FAILED}), handler="send-invoice"),
            JobFilter(handler="nobody"),
        ]
        for where in filters:
            expected = [job for job in jobs[::-1] if _plainly(where, job)]
            assert await pages(master, where, 3) == expected, where
        assert sum(1 for where in filters for job in jobs if _plainly(where, job)) > 50

    @pytest.mark.asyncio
    async def test_tags_and_metadata_are_compared_exactly(self, store: MasterHarness) -> None:
        master = await store.open()
        labels = [
            Labels(tags=("vip",)),
            Labels(tags=("vip2", "not vip")),
            Labels(title='"vip"', metadata={"vip": "vip"}),
            Labels(metadata={"n": 1, "user": {"id": [1, "a"]}}),
            Labels(metadata={"n": True}),
            Labels(metadata={"n": "1"}),
            Labels(tags=('q"uote', "100%", "a_b", "back\\slash", "über")),
            Labels(tags=("100x", "aXb", "uber")),
        ]
        jobs = [sample(JobState.SUCCEEDED, labels=entry.encode()) for entry in labels]
        await master.apply("transport-1", [record(job, seq) for seq, job in enumerate(jobs)])
        await master.insert([held(labels=Labels(tags=("vip",)).encode())])

        async def found(**where: object) -> list[int]:
            page = await pages(master, JobFilter(states=frozenset({JobState.SUCCEEDED}), **where), 2)  # type: ignore[arg-type]  # any of the fields
            return sorted(jobs.index(job) for job in page)

        assert await found(tag="vip") == [0]
        assert await found(tag="VIP") == []
        for tag in ('q"uote', "100%", "a_b", "back\\slash", "über"):
            assert await found(tag=tag) == [6], tag
        assert await found(tag="%") == []
        assert await found(metadata={"n": 1}) == [3]
        assert await found(metadata={"n": 1.0}) == [3]
        assert await found(metadata={"n": True}) == [4]
        assert await found(metadata={"n": "1"}) == [5]
        assert await found(metadata={"user": {"id": [1, "a"]}}) == [3]
        assert await found(metadata={"user": {"id": [1]}}) == []
        assert await found(metadata={"n": 1, "other": 2}) == []
        assert await found(tag="vip2", metadata={"n": 1}) == []

    @pytest.mark.asyncio
    async def test_a_page_refuses_a_cursor_that_was_none(self, store: MasterHarness) -> None:
        master = await store.open()
        for cursor in ("", "1", "x" * 36, "'; DROP TABLE job;--", "\x00", "é" * 36, "a" * 5_000):
            with pytest.raises(OptionInvalid, match="cursor"):
                await master.page(JobFilter(), cursor, 10)
        for limit in (0, -1):
            with pytest.raises(OptionInvalid, match="limit"):
                await master.page(JobFilter(), None, limit)

    @pytest.mark.asyncio
    async def test_hostile_filters_find_nothing(self, store: MasterHarness) -> None:
        master = await store.open()
        await _filled(master)
        for text in ("'; DROP TABLE job;--", "%", "_", '" OR 1=1', "\\", "a" * 5_000, "\U0001f600"):
            for where in (JobFilter(handler=text), JobFilter(lane=text), JobFilter(tag=text), JobFilter(schedule=text)):
                assert (await master.page(where, None, 10)).jobs == []

    @pytest.mark.asyncio
    async def test_counts_are_per_state_and_lane_and_capped(self, store: MasterHarness) -> None:
        master = await store.open()
        ended = [sample(JobState.SUCCEEDED, lane="mails") for _ in range(7)]
        ended += [sample(JobState.FAILED, lane="mails"), sample(JobState.SUCCEEDED, lane="default")]
        await master.apply("transport-1", [record(job, seq) for seq, job in enumerate(ended)])
        await master.insert([held() for _ in range(6)] + [held(lane="mails"), dispatching()])
        counts = [
            StateCount(JobState.DISPATCHING, "default", 1),
            StateCount(JobState.FAILED, "mails", 1),
            StateCount(JobState.HELD, "default", 6),
            StateCount(JobState.HELD, "mails", 1),
            StateCount(JobState.SUCCEEDED, "default", 1),
        ]
        assert await master.counts(7) == [*counts, StateCount(JobState.SUCCEEDED, "mails", 7)]
        counts[2] = StateCount(JobState.HELD, "default", 5, True)
        assert await master.counts(5) == [*counts, StateCount(JobState.SUCCEEDED, "mails", 5, True)]

    @pytest.mark.asyncio
    async def test_what_is_at_another_version_than_expected_is_left_alone(self, store: MasterHarness) -> None:
        master = await store.open()
        ended, waiting = sample(JobState.FAILED), held()
        await master.apply("transport-1", [record(ended, run=run_of(ended))])
        await master.insert([waiting])
        off, right = [ended.version + 1], [ended.version]
        assert await master.redrive([ended.id], 5, False, off) == [HeldAnswer.REFUSED]
        assert await master.delete([ended.id], off) == [HeldAnswer.REFUSED]
        assert await master.cancel([waiting.job.id], [waiting.job.version + 1]) == [HeldAnswer.REFUSED]
        assert await master.get([ended.id, waiting.job.id]) == [ended, waiting.job]
        assert await master.redrive([ended.id], 5, False, right) == [HeldAnswer.CHANGED]
        assert await master.cancel([waiting.job.id], [waiting.job.version]) == [HeldAnswer.CHANGED]
        assert await master.delete([waiting.job.id], [waiting.job.version + 1]) == [HeldAnswer.CHANGED]

    @pytest.mark.asyncio
    async def test_deleting_removes_ended_jobs_and_their_runs(self, store: MasterHarness) -> None:
        master = await store.open()
        ended, other, away, waiting = sample(JobState.FAILED), sample(JobState.SUCCEEDED), dispatching(), held()
        records = [record(job, seq, run=run_of(job)) for seq, job in enumerate([ended, other])]
        await master.apply("transport-1", records)
        await master.insert([away, waiting])
        ids = [ended.id, away.job.id, waiting.job.id, new_id()]
        assert await master.delete(ids) == [
            HeldAnswer.CHANGED,
            HeldAnswer.ELSEWHERE,
            HeldAnswer.REFUSED,
            HeldAnswer.UNKNOWN,
        ]
        assert await master.delete([ended.id]) == [HeldAnswer.UNKNOWN]
        assert await master.get([ended.id, other.id]) == [None, other]
        assert await master.runs(ended.id) == []
        assert len(await master.runs(other.id)) == 1

    @pytest.mark.asyncio
    async def test_pruning_forgets_what_is_old_and_nothing_else(self, store: MasterHarness) -> None:
        master = await store.open()
        old = [sample(state, finished_us=100, lane=lane) for state in ENDED for lane in ("default", "mails")]
        young = [sample(state, finished_us=200) for state in ENDED]
        jobs = [*old, *young]
        await master.apply("transport-1", [record(job, seq, run=run_of(job)) for seq, job in enumerate(jobs)])
        await master.insert([held(due_us=1)])
        assert await master.prune(100, 100) == 0
        assert [await master.prune(200, 4) for _ in range(3)] == [4, 2, 0]
        assert await master.get([job.id for job in old]) == [None] * len(old)
        assert await master.get([job.id for job in young]) == young
        assert [len(await master.runs(job.id)) for job in jobs] == [0] * len(old) + [1] * len(young)
        assert len((await master.page(JobFilter(), None, 100)).jobs) == len(young) + 1

    @pytest.mark.asyncio
    async def test_two_coordinators_prune_each_job_once_and_what_is_reported_late(self, store: MasterHarness) -> None:
        one, two = await store.open(), await store.open()
        jobs = [sample(JobState.SUCCEEDED, finished_us=100 + number) for number in range(30)]
        late = sample(JobState.SUCCEEDED, finished_us=50)
        await one.apply("transport-1", [record(job, seq, run=run_of(job)) for seq, job in enumerate(jobs)])
        gone = sum(await asyncio.gather(*(master.prune(200, 10) for master in (one, two))))
        await one.apply("transport-1", [record(late, 99, run=run_of(late))])
        while more := await one.prune(200, 10) + await two.prune(200, 10):
            gone += more
        assert gone == 31
        assert await one.get([job.id for job in [*jobs, late]]) == [None] * 31
        assert await one.runs(late.id) == []

    @pytest.mark.asyncio
    async def test_pruning_by_state_and_handler_forgets_these_alone(self, store: MasterHarness) -> None:
        master = await store.open()
        jobs = [
            sample(state, finished_us=100 + number, handler=handler)
            for state in ENDED
            for handler in ("short", "long", "other")
            for number in range(4)
        ]
        await master.apply("transport-1", [record(job, seq, run=run_of(job)) for seq, job in enumerate(jobs)])

        async def left() -> Counter[tuple[str, str]]:
            return Counter((job.state, job.handler) for job in await master.get([j.id for j in jobs]) if job)

        succeeded = frozenset({JobState.SUCCEEDED})
        short = Expiry(succeeded, handler="short", jobs_only=True)
        assert [await master.prune(103, 2, short) for _ in range(3)] == [2, 1, 0]
        assert await master.prune(104, 10, short) == 1
        others = Expiry(succeeded, besides=frozenset({"short", "long"}), jobs_only=True)
        assert [await master.prune(200, 3, others) for _ in range(3)] == [3, 1, 0]
        expected = Counter({(state, handler): 4 for state in ENDED for handler in ("short", "long", "other")})
        del expected[JobState.SUCCEEDED, "short"], expected[JobState.SUCCEEDED, "other"]
        assert await left() == expected
        # What is reported late is found when the next process, or an hour, begins.
        late = sample(JobState.SUCCEEDED, finished_us=50, handler="short")
        await master.apply("transport-1", [record(late, 99)])
        assert await (await store.open()).prune(200, 10, short) == 1
        # Occurrences and the like alone.
        await master.record([Event(id=new_id(), kind="worker.joined", subject="w", who="me")])
        nothing = Expiry(states=frozenset())
        assert await master.prune(await master.store_now_us() - SECOND * 60, 10, nothing) == 0
        assert len(await master.events(None, None, 10)) == 1
        assert await master.prune(await master.store_now_us() + SECOND * 60, 10, nothing) == 0
        assert await master.events(None, None, 10) == []
        assert await left() == expected

    @pytest.mark.asyncio
    async def test_pruning_forgets_old_occurrences(self, store: MasterHarness) -> None:
        master = await store.open()
        await master.save_schedule(schedule())
        await master.backfill("welcome", range(10, 60, 10), planning())

        async def ticks() -> list[int]:
            return [entry.occurrence.tick_us for entry in await master.occurrences("welcome", None, 10)]

        await master.prune(40, 2)
        assert await ticks() == [50, 40, 30]
        await master.prune(40, 2)
        assert await ticks() == [50, 40]

    @pytest.mark.asyncio
    async def test_readers_see_a_job_in_one_place_while_it_ends(self, store: MasterHarness) -> None:
        master, reader = await store.open(), await store.open()
        jobs = [sample(JobState.QUEUED) for _ in range(200)]
        await master.copy("transport-1", jobs)

        async def look() -> None:
            page = await reader.page(JobFilter(), None, 500)
            assert len({job.id for job in page.jobs}) == len(page.jobs) == 200
            assert None not in await reader.get([job.id for job in jobs])

        for start in range(0, 200, 10):
            ended = [sample(JobState.SUCCEEDED, id=job.id, version=9) for job in jobs[start : start + 10]]
            records = [record(job, seq) for seq, job in enumerate(ended)]
            await asyncio.gather(look(), master.apply("transport-1", records), look())
        assert all(job is not None and job.terminal for job in await reader.get([job.id for job in jobs]))


ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


async def pages(master: MasterStore, where: JobFilter, limit: int, cursor: str | None = None) -> list[Job]:
    """All pages from the cursor on, put together."""
    jobs: list[Job] = []
    while True:
        page = await master.page(where, cursor, limit)
        assert len(page.jobs) <= limit
        jobs += page.jobs
        if page.cursor is None:
            return jobs
        assert cursor is None or page.cursor < cursor
        cursor = page.cursor


def _plainly(where: JobFilter, job: Job) -> bool:
    return (
        (not where.states or job.state in where.states)
        and where.handler in (None, job.handler)
        and where.lane in (None, job.lane)
        and where.agent in (None, job.agent)
        and where.schedule in (None, job.schedule)
        and (where.since_us is None or job.created_us >= where.since_us)
    )


async def _filled(master: MasterStore) -> list[Job]:
    """Two dozen jobs of all kinds, oldest id first."""
    kinds = [JobState.HELD, JobState.SUCCEEDED, JobState.QUEUED]
    kinds += [JobState.FAILED, JobState.CANCELLED, JobState.SUCCEEDED]
    jobs = [
        sample(
            kinds[number % 6],
            handler=("send-welcome", "send-invoice")[number % 5 == 0],
            lane=("default", "mails")[number % 3 == 0],
            agent=("transport-1", "transport-2")[number % 7 == 0],
            schedule=("nightly" if number % 4 == 0 else None),
            created_us=1_800_000_000_000_000 + number,
        )
        for number in range(24)
    ]
    await master.insert([held(**_fields(job)) for job in jobs if job.state is JobState.HELD])
    rest = [job for job in jobs if job.state is not JobState.HELD]
    await master.apply("transport-1", [record(job, seq) for seq, job in enumerate(rest)])
    return jobs


def _fields(job: Job) -> dict[str, object]:
    return {name: getattr(job, name) for name in ("id", "handler", "lane", "agent", "schedule", "created_us")}
