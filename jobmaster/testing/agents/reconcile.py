"""Reconciling: a quarantined store is closed, its rows are raised or removed, and it comes back as another one."""

import msgspec
import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import (
    Control,
    ControlKind,
    ExtendAnswer,
    Extension,
    PutAnswer,
    Rebase,
    RebaseKind,
    Revoke,
    RevokeKind,
    SettleAnswer,
    StoreMode,
)
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.agents.cases import (
    HANDLERS,
    HOUR_US,
    LANE,
    LONG_US,
    SHORT,
    SHORT_US,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    found,
    here,
    ids,
    make_job,
    new_job,
    put,
    put_new,
    records,
    release,
    settle,
)
from jobmaster.testing.agents.harness import AgentStore, skip

ONCE = msgspec.json.encode(Policy(at_most_once=True))
OLD = "before-it-was-set-back"
NEW = "after-it-was-reconciled"


async def quarantine(agent: AgentTransport, mark: int = 0) -> str:
    """Close the store as it is; its incarnation."""
    incarnation = (await agent.probe()).incarnation
    await agent.control(Control(ControlKind.QUARANTINE, incarnation=incarnation, mark=mark))
    return incarnation


def raised(job: Job, *, started: bool = False) -> Rebase:
    return Rebase(job.id, job.epoch, RebaseKind.RAISE, started)


def removed(job: Job) -> Rebase:
    return Rebase(job.id, job.epoch, RebaseKind.REMOVE)


class ReconcileCases(AgentCases):
    async def test_in_quarantine_nothing_new_happens_to_jobs(self, store: AgentStore, agent: AgentTransport) -> None:
        leased = await claimed_new(agent, ttl_us=SHORT_US)
        now_us = await agent.store_now_us()
        waiting = await put_new(agent, due_us=now_us + SHORT_US)
        waiting += await put_new(agent, handler="nobody-knows-it")
        before = [await here(agent, job.id) for job in (leased, *waiting)]

        await quarantine(agent)
        await store.advance(SHORT)

        assert await claim(agent) == []
        assert (await agent.reap(10, dead=frozenset({"w1"}))).requeued == 0
        assert (await agent.promote(10)).ready == 0
        assert not (await agent.park(HANDLERS, 10)).parked
        with pytest.raises(Refused, match="quarantined"):
            await put(agent, await new_job(agent))
        assert await put(agent, msgspec.structs.replace(waiting[0])) == [PutAnswer.DUPLICATE]
        assert [await here(agent, job.id) for job in (leased, *waiting)] == before

    async def test_a_store_is_quarantined_only_as_what_it_was_seen(self, agent: AgentTransport) -> None:
        with pytest.raises(Refused, match="incarnation"):
            await agent.control(Control(ControlKind.QUARANTINE, incarnation=OLD))
        assert (await agent.probe()).mode is StoreMode.OPEN
        await quarantine(agent)
        assert (await agent.probe()).mode is StoreMode.QUARANTINED

    async def test_the_mark_known_elsewhere_is_not_given_out_again(self, agent: AgentTransport) -> None:
        await settle(agent, await claimed_new(agent))
        mark = (await agent.probe()).high_water
        assert mark > 0

        await quarantine(agent, mark + 1_000)
        await quarantine(agent, 1)

        assert (await agent.probe()).high_water >= mark + 1_000
        [unseen] = await agent.revoke([Revoke(make_job(1).id, 1, RevokeKind.MOVE)])
        assert unseen.answer == "absent"
        assert max(record.seq for record in await records(agent)) > mark + 1_000

    async def test_rebase_and_adopt_are_for_quarantined_stores(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        for call in (agent.rebase([raised(job)]), agent.adopt(NEW)):
            with pytest.raises(Refused, match="quarantined"):
                await call
        assert await here(agent, job.id) == (await agent.find([job.id]))[0]
        assert (await here(agent, job.id)).epoch == 1

    async def test_a_raised_job_keeps_its_place_in_a_new_epoch(self, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 3)
        now_us = await agent.store_now_us()
        [delayed] = await put_new(agent, due_us=now_us + HOUR_US)
        before = [await here(agent, job.id) for job in (*jobs, delayed)]
        await quarantine(agent)

        assert await agent.rebase([raised(delayed), *map(raised, reversed(jobs))]) == [True] * 4

        after = [await here(agent, job.id) for job in (*jobs, delayed)]
        assert after == [msgspec.structs.replace(job, epoch=2, version=job.version + 1) for job in before]
        assert await records(agent) == []
        await agent.adopt(NEW)
        assert ids(await claim(agent)) == ids(jobs)
        [stats] = await agent.stats()
        assert (stats.ready, stats.delayed, stats.leased) == (0, 1, 3)

    async def test_repeating_a_raise_changes_nothing(self, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 2)
        await quarantine(agent)

        assert await agent.rebase([raised(jobs[0]), raised(jobs[0]), raised(jobs[1])]) == [True, False, True]
        assert await agent.rebase([*map(raised, jobs), removed(jobs[0])]) == [False] * 3

        assert [(item.epoch, item.version) for item in await agent.inventory("", 10)] == [(2, 2)] * 2
        assert await agent.rebase([raised(make_job(1))]) == [False]

    async def test_no_token_of_before_settles_a_raised_job(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await quarantine(agent)
        await agent.rebase([raised(job)])
        await agent.adopt(NEW)

        assert await settle(agent, job) is SettleAnswer.STALE
        assert await agent.extend([Extension(job.id, job.token)], LONG_US) == [ExtendAnswer.LOST]
        again = await claim_one(agent)
        assert again.id == job.id
        assert again.token > job.token
        assert (again.suspect, again.crash_count, again.interrupts) == (False, 0, 0)
        assert await settle(agent, job) is SettleAnswer.STALE
        assert await settle(agent, again) is SettleAnswer.ACCEPTED

    async def test_a_raised_lease_whose_start_is_recorded_was_interrupted(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await agent.extend([Extension(job.id, job.token, started=True)], LONG_US)
        await quarantine(agent)

        await agent.rebase([raised(job)])

        raised_job = await here(agent, job.id)
        assert (raised_job.state, raised_job.epoch, raised_job.interrupts) == (JobState.QUEUED, 2, 1)
        [record] = await records(agent)
        assert record.run is not None
        assert record.job == raised_job
        assert (record.run.token, record.run.outcome) == (job.token, RunOutcome.INTERRUPTED)

    @pytest.mark.parametrize("known_here", [True, False])
    async def test_an_at_most_once_job_that_was_started_ends(self, agent: AgentTransport, known_here: bool) -> None:
        if known_here:
            job = await claimed_new(agent, policy=ONCE)
            await agent.extend([Extension(job.id, job.token, started=True)], LONG_US)
        else:
            [job] = await put_new(agent, policy=ONCE)
        [other] = await put_new(agent, policy=ONCE)
        await quarantine(agent)

        await agent.rebase([raised(job, started=not known_here), raised(other)])

        ended = await here(agent, job.id)
        assert (ended.state, ended.reason, ended.epoch) == (JobState.FAILED, FailReason.CRASHED, 2)
        assert [item.id for item in await agent.inventory("", 10)] == [other.id]
        [record] = await records(agent)
        assert record.job == ended

    async def test_a_removed_row_leaves_a_tombstone_and_no_record(self, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 3)
        claimed = await claim_one(agent)
        await quarantine(agent)

        assert await agent.rebase([removed(jobs[1]), removed(claimed), raised(jobs[2])]) == [True] * 3
        assert await agent.rebase([removed(claimed)]) == [False]
        await agent.adopt(NEW)

        assert await found(agent, claimed.id) is None
        assert await records(agent) == []
        assert await put(agent, jobs[0], jobs[1]) == [PutAnswer.TOMBSTONED] * 2
        assert await put(agent, msgspec.structs.replace(jobs[1], epoch=2)) == [PutAnswer.STORED]
        assert await settle(agent, claimed) in (SettleAnswer.STALE, SettleAnswer.UNKNOWN)
        assert sorted(ids(await claim(agent))) == sorted([jobs[1].id, jobs[2].id])

    async def test_a_late_put_of_a_raised_job_is_of_an_old_epoch(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        await quarantine(agent)
        await agent.rebase([raised(job)])

        assert await put(agent, job) == [PutAnswer.STALE_EPOCH]
        await agent.adopt(NEW)
        assert await put(agent, job) == [PutAnswer.STALE_EPOCH]
        [answer] = await agent.revoke([Revoke(job.id, 1, RevokeKind.MOVE)])
        assert answer.answer == "settled"

    async def test_adopting_makes_it_another_store(self, store: AgentStore, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        other = await store.open()
        await quarantine(agent)

        report = await agent.adopt(NEW)

        assert (report.incarnation, report.mode, report.joined) == (NEW, StoreMode.OPEN, True)
        assert (await agent.adopt(NEW)).incarnation == NEW
        with pytest.raises(Refused, match="quarantined"):
            await agent.adopt("yet-another")
        assert not (await other.probe()).joined
        for call in (claim(other), other.rebase([raised(job)]), other.adopt("yet-another")):
            with pytest.raises(Refused, match=agent.name):
                await call
        with pytest.raises(Refused, match="incarnation"):
            await other.control(Control(ControlKind.QUARANTINE, incarnation=OLD))
        with pytest.raises(Refused, match=NEW):
            await other.rejoin(OLD)
        assert (await other.rejoin(NEW)).joined
        assert ids(await claim(other)) == [job.id]

    async def test_two_who_reconcile_at_once_come_to_one(self, store: AgentStore, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        other = await store.open()
        await quarantine(agent)
        seen = [await agent.inventory("", 10), await other.inventory("", 10)]

        assert await agent.rebase([Rebase(item.id, item.epoch, RebaseKind.RAISE) for item in seen[0]]) == [True]
        await agent.adopt(NEW)

        with pytest.raises(Refused):
            await other.rebase([Rebase(item.id, item.epoch, RebaseKind.RAISE) for item in seen[1]])
        assert (await other.adopt(NEW)).joined
        assert [item.epoch for item in await agent.inventory("", 10)] == [2]
        assert ids(await claim(other)) == [job.id]

    async def test_the_keepers_handle_comes_along(self, agent: AgentTransport) -> None:
        keeper = agent.companion()
        [job] = await put_new(agent)
        await quarantine(agent)
        await agent.rebase([raised(job)])
        await agent.adopt(NEW)
        claimed = await claim_one(agent)

        assert await keeper.extend([Extension(job.id, claimed.token)], LONG_US) == [ExtendAnswer.HELD]

    async def test_what_ends_in_quarantine_is_reported(self, agent: AgentTransport) -> None:
        first, second = await put_new(agent, 2)
        claimed = {job.id: job for job in await claim(agent)}
        await quarantine(agent)

        assert await settle(agent, claimed[first.id]) is SettleAnswer.ACCEPTED
        assert await release(agent, claimed[second.id]) is SettleAnswer.ACCEPTED
        assert [record.job.id for record in await records(agent) if record.job] == [first.id]

    async def test_reconciling_survives_a_restart(self, store: AgentStore, agent: AgentTransport) -> None:
        if not agent.traits.restartable:
            skip("trait restartable is false: nothing is left after a restart")
        jobs = await put_new(agent, 2)
        await quarantine(agent)
        await agent.rebase([raised(jobs[0]), removed(jobs[1])])

        await store.restart()
        agent = await store.open()

        assert (await agent.probe()).mode is StoreMode.QUARANTINED
        assert [(item.id, item.epoch) for item in await agent.inventory("", 10)] == [(jobs[0].id, 2)]
        await agent.adopt(NEW)
        await store.restart()
        agent = await store.open()
        assert (await agent.probe()).incarnation == NEW
        assert ids(await claim(agent)) == [jobs[0].id]

    async def test_a_store_that_was_set_back_shows_it(self, store: AgentStore, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 3)
        await settle(agent, await claim_one(agent))
        set_back = await store.rewind()
        async with set_back:
            await settle(agent, await claim_one(agent))
            later = await agent.probe()
        agent = await store.open()

        report = await agent.probe()
        assert report.incarnation == later.incarnation
        assert report.high_water < later.high_water
        await quarantine(agent, later.high_water)
        await agent.rebase([removed(jobs[1]), raised(jobs[2])])
        await agent.adopt(NEW)
        assert ids(await claim(agent)) == [jobs[2].id]
        assert (await agent.probe()).high_water >= later.high_water

    async def test_stats_are_right_after_adopting(self, agent: AgentTransport) -> None:
        await put_new(agent, 2)
        await put_new(agent, lane="other")
        await claim_one(agent)
        await quarantine(agent)
        await agent.rebase([Rebase(item.id, item.epoch, RebaseKind.RAISE) for item in await agent.inventory("", 10)])

        await agent.adopt(NEW)

        assert {stats.lane: (stats.ready, stats.leased) for stats in await agent.stats()} == {
            LANE: (2, 0),
            "other": (1, 0),
        }
