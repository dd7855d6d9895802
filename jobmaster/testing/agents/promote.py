"""Time passing: delayed jobs become ready, others expire; and jobs nobody here can run are set aside."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import SettleAnswer
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.priority import Priority
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.agents.cases import (
    HANDLER,
    HANDLERS,
    HOUR_US,
    SHORT,
    SHORT_US,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    here,
    ids,
    make_job,
    put,
    put_new,
    records,
    release,
    settle,
)
from jobmaster.testing.agents.harness import AgentStore, skip

AWHILE_US = 1_000_000
"""Longer than what a slow machine needs for a few calls."""


class PromoteCases(AgentCases):
    async def test_due_jobs_become_ready_in_due_order(self, store: AgentStore, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        jobs = [make_job(now_us, due_us=now_us + 500_000 + offset) for offset in (3_000, 1_000, 2_000)]
        await put(agent, *jobs)
        await store.advance(0.51)

        report = await agent.promote(10)

        assert (report.ready, report.more) == (0 if agent.traits.fires_delays else 3, False)
        assert ids(await claim(agent)) == ids([jobs[1], jobs[2], jobs[0]])

    async def test_a_promoted_job_stands_behind_those_ready_before(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        now_us = await agent.store_now_us()
        delayed = make_job(now_us, due_us=now_us + 500_000)
        await put(agent, delayed)
        [ready] = await put_new(agent)
        await store.advance(0.51)
        await agent.promote(10)

        assert ids(await claim(agent)) == ids([ready, delayed])

    async def test_promote_is_bounded_and_says_when_to_come_again(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        if agent.traits.fires_delays:
            skip("trait fires_delays is true: no call makes delayed jobs ready")
        now_us = await agent.store_now_us()
        later_us = now_us + HOUR_US
        await put(agent, *(make_job(now_us, due_us=now_us + 500_000) for _ in range(5)))
        await put(agent, make_job(now_us, due_us=later_us))
        await store.advance(0.51)

        reports = [await agent.promote(3), await agent.promote(3), await agent.promote(3)]

        assert [(report.ready, report.more) for report in reports] == [(3, True), (2, False), (0, False)]
        assert reports[-1].next_due_us == later_us

    async def test_next_due_is_none_where_nothing_waits(self, agent: AgentTransport) -> None:
        await put_new(agent)

        assert (await agent.promote(10)).next_due_us is None

    async def test_waiting_jobs_expire(self, store: AgentStore, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        expiry = now_us + 1_000
        jobs = [
            make_job(now_us, expires_us=expiry),
            make_job(now_us, expires_us=expiry, due_us=now_us + HOUR_US),
            make_job(now_us, expires_us=expiry, handler="nobodys"),
        ]
        later = make_job(now_us, expires_us=now_us + HOUR_US)
        await put(agent, *jobs, later)
        await agent.park(HANDLERS, 10)
        await store.advance(SHORT)

        report = await agent.promote(10)

        next_us = None if agent.traits.fires_delays else now_us + HOUR_US
        assert (report.expired, report.ready, report.next_due_us) == (3, 0, next_us)
        for job in jobs:
            ended = await here(agent, job.id)
            assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.EXPIRED)
            assert ended.version == job.version + 1
        assert len(await records(agent)) == 3
        assert ids(await claim(agent)) == [later.id]

    async def test_expiring_is_bounded(self, store: AgentStore, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        await put(agent, *(make_job(now_us, expires_us=now_us + 1_000) for _ in range(5)))
        await store.advance(SHORT)

        reports = [await agent.promote(2), await agent.promote(2), await agent.promote(2)]

        assert [(report.expired, report.more) for report in reports] == [(2, True), (2, True), (1, False)]

    async def test_a_running_job_does_not_expire(self, store: AgentStore, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        await put(agent, make_job(now_us, expires_us=now_us + 2_000_000))
        job = await claim_one(agent)
        await store.advance(2.0)

        assert (await agent.promote(10)).expired == 0
        assert await settle(agent, job) is SettleAnswer.ACCEPTED

    async def test_a_retry_waits_for_its_time(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job, RunOutcome.RETRY_AT, after_us=300_000)
        early = await claim(agent)
        assert early == []
        await store.advance(0.3)

        assert (await agent.promote(10)).ready == (0 if agent.traits.fires_delays else 1)
        assert (await claim_one(agent)).attempt == 2


class ParkCases(AgentCases):
    async def test_jobs_nobody_knows_are_set_aside_and_come_back_in_place(self, agent: AgentTransport) -> None:
        _must_park(agent)
        now_us = await agent.store_now_us()
        names = ["late", HANDLER, "late", HANDLER, "other"]
        jobs = [make_job(now_us, handler=name) for name in names]
        await put(agent, *jobs)

        report = await agent.park(HANDLERS, 10)

        assert (report.parked, report.unparked, report.more) == ({"late": 2, "other": 1}, 0, False)
        [stats] = await agent.stats()
        assert (stats.ready, stats.parked) == (2, 3)
        assert (await here(agent, jobs[0].id)).state is JobState.QUEUED
        everybody = frozenset(names)
        assert ids(await agent.claim("w1", {"default": 1}, everybody, 1, SHORT_US)) == [jobs[1].id]
        report = await agent.park(frozenset({"late", HANDLER}), 10)
        assert (report.parked, report.unparked) == ({}, 2)
        claimed = await agent.claim("w1", {"default": 9}, everybody, 9, SHORT_US)
        assert ids(claimed) == ids([jobs[0], jobs[2], jobs[3]])

    async def test_parking_is_bounded(self, agent: AgentTransport) -> None:
        _must_park(agent)
        await put_new(agent, 5, handler="late")

        reports = [await agent.park(HANDLERS, 3) for _ in range(3)]
        assert [report.parked.get("late", 0) for report in reports] == [3, 2, 0]
        assert [report.more for report in reports] == [True, False, False]

        reports = [await agent.park(frozenset({"late"}), 3) for _ in range(3)]
        assert [report.unparked for report in reports] == [3, 2, 0]

    async def test_a_job_nobody_knows_is_given_up_after_its_time(
        self, agent: AgentTransport, store: AgentStore
    ) -> None:
        _must_park(agent)
        after = Policy(unroutable_after_us=AWHILE_US).encode()
        await put_new(agent, 3, handler="late")
        now_us = await agent.store_now_us()
        limited = [make_job(now_us, handler="late", policy=after) for _ in range(3)]
        later = make_job(now_us, handler="later", policy=after)
        await put(agent, *limited, later)

        report = await agent.park(HANDLERS, 10)
        assert (report.parked, report.failed) == ({"late": 6, "later": 1}, 0)
        await store.advance(AWHILE_US / 1e6)

        reports = [await agent.park(HANDLERS | {"later"}, 2) for _ in range(3)]

        assert [report.failed for report in reports] == [2, 1, 0]
        ended = [await here(agent, job.id) for job in limited]
        assert {(job.state, job.reason) for job in ended} == {(JobState.FAILED, FailReason.UNKNOWN_HANDLER)}
        [stats] = await agent.stats()
        assert (stats.ready, stats.parked) == (1, 3)

    async def test_leased_and_delayed_jobs_are_not_parked(self, agent: AgentTransport) -> None:
        _must_park(agent)
        job = await claimed_new(agent)
        await put_new(agent, due_us=await agent.store_now_us() + HOUR_US, priority=Priority.LOW)

        assert (await agent.park(frozenset(), 10)).parked == {}
        await release(agent, job)
        assert (await agent.park(frozenset(), 10)).parked == {HANDLER: 1}
        assert await claim(agent) == []


def _must_park(agent: AgentTransport) -> None:
    if not agent.traits.parks:
        skip("trait parks is false: jobs can't be looked for by their handler")
