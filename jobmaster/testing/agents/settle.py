"""Settling: outcomes are applied once, by the holder of the current token, together with their record."""

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Extension, Revoke, RevokeKind, SettleAnswer
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.agents.cases import (
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
    put,
    put_new,
    records,
    release,
    settle,
    settlement,
    without,
)
from jobmaster.testing.agents.harness import AgentStore


class SettleCases(AgentCases):
    async def test_a_succeeded_job_leaves_with_its_result(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        answer = await settle(agent, job, result=b'{"n":1}', detail=b'{"log":["a"]}', progress=100)

        assert answer is SettleAnswer.ACCEPTED
        assert await agent.inventory("", 10) == []
        [record] = await records(agent)
        assert record.job is not None
        assert record.run is not None
        ended = record.job
        assert (ended.state, ended.result, ended.reason) == (JobState.SUCCEEDED, b'{"n":1}', None)
        assert (ended.version, ended.attempts, ended.progress) == (job.version + 1, 0, 100)
        assert ended.finished_us is not None
        assert ended.first_started_us is not None
        run = record.run
        assert (run.job_id, run.token, run.attempt, run.outcome) == (job.id, job.token, 1, RunOutcome.SUCCEEDED)
        assert (run.worker, run.host, run.detail) == ("w1", "host-1", b'{"log":["a"]}')
        assert (run.started_us, run.finished_us) == (job.due_us, job.due_us + 1_000)

    async def test_a_failed_job_leaves_with_its_reason(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        await settle(agent, job, RunOutcome.FAILED, reason=FailReason.TIMED_OUT, error="TimeoutError: 5 s")

        ended = await here(agent, job.id)
        assert (ended.state, ended.reason, ended.attempts) == (JobState.FAILED, FailReason.TIMED_OUT, 1)
        assert ended.error == "TimeoutError: 5 s"

    async def test_a_retry_is_queued_again_as_a_failed_attempt(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        await settle(agent, job, RunOutcome.RETRY_AT, after_us=60_000_000, error="ValueError: no")

        now_us = await agent.store_now_us()
        stands = await here(agent, job.id)
        assert (stands.state, stands.attempts, stands.attempt) == (JobState.QUEUED, 1, 2)
        assert (stands.error, stands.started_us, stands.finished_us) == ("ValueError: no", None, None)
        assert now_us < stands.due_us <= now_us + 60_000_000
        await agent.promote(10)
        assert await claim(agent) == []
        [record] = await records(agent)
        assert record.job == stands
        assert record.run is not None
        assert (record.run.outcome, record.run.error) == (RunOutcome.RETRY_AT, "ValueError: no")

    async def test_a_snooze_is_no_attempt(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        await settle(agent, job, RunOutcome.SNOOZED, after_us=SHORT_US)

        stands = await here(agent, job.id)
        assert (stands.state, stands.attempts, stands.snoozes) == (JobState.QUEUED, 0, 1)
        await store.advance(SHORT)
        await agent.promote(10)
        assert (await claim_one(agent)).attempt == 1

    async def test_an_interrupted_run_is_claimable_at_once_and_no_attempt(self, agent: AgentTransport) -> None:
        first, _ = await put_new(agent, 2)
        job = await claim_one(agent)

        await settle(agent, job, RunOutcome.INTERRUPTED)

        again = await claim_one(agent)
        assert again.id == first.id
        assert (again.attempts, again.interrupts, again.suspect) == (0, 1, False)

    @pytest.mark.parametrize(
        ("outcome", "policy"),
        [
            (RunOutcome.SNOOZED, Policy(max_snoozes=1)),
            (RunOutcome.INTERRUPTED, Policy(max_interrupts=1)),
            (RunOutcome.RETRY_AT, Policy(at_most_once=True)),
        ],
    )
    async def test_a_cap_of_the_policy_ends_the_job(
        self, agent: AgentTransport, outcome: RunOutcome, policy: Policy
    ) -> None:
        job = await claimed_new(agent, policy=policy.encode())
        while True:
            await settle(agent, job, outcome)
            await agent.promote(10)
            claimed = await claim(agent)
            if not claimed:
                break
            [job] = claimed

        ended = await here(agent, job.id)
        assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.EXHAUSTED)
        assert len(await records(agent, job.id)) == (1 if policy.at_most_once else 2)

    async def test_stale_finish_rejected_and_reported(self, store: AgentStore, agent: AgentTransport) -> None:
        old = await claimed_new(agent, ttl_us=SHORT_US)
        await store.advance(SHORT)
        await agent.reap(10)
        waiting = await here(agent, old.id)

        assert await settle(agent, old) is SettleAnswer.STALE
        assert await here(agent, old.id) == waiting
        new = await claim_one(agent)
        assert await settle(agent, old) is SettleAnswer.STALE
        assert await here(agent, old.id) == new
        assert await records(agent) == []

    async def test_a_settle_with_a_token_never_granted_is_stale(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        [waiting] = await put_new(agent)
        forged = [
            settlement(job, attempt=1),
            settlement(make_job(1, id=job.id, claim_seq=job.claim_seq + 1)),
            settlement(make_job(1, id=waiting.id, claim_seq=1)),
        ]

        assert await agent.settle(forged[1:]) == [SettleAnswer.STALE] * 2
        assert await agent.settle(forged[:1]) == [SettleAnswer.ACCEPTED]

    async def test_an_id_never_seen_is_unknown(self, agent: AgentTransport) -> None:
        job = make_job(1, claim_seq=1)

        assert await settle(agent, job) is SettleAnswer.UNKNOWN
        assert await release(agent, job) is SettleAnswer.UNKNOWN
        assert await records(agent) == []

    @pytest.mark.parametrize("outcome", [RunOutcome.SUCCEEDED, RunOutcome.FAILED, RunOutcome.RETRY_AT])
    async def test_finish_twice_same_token_same_outcome_is_accepted(
        self, agent: AgentTransport, outcome: RunOutcome
    ) -> None:
        job = await claimed_new(agent)
        item = settlement(job, outcome, after_us=60_000_000 if outcome is RunOutcome.RETRY_AT else 0)

        assert await agent.settle([item]) == [SettleAnswer.ACCEPTED]
        stands = await here(agent, job.id)
        again = settlement(job, outcome, after_us=item.after_us, finished_us=item.finished_us + 5_000)
        assert await agent.settle([again, again]) == [SettleAnswer.ACCEPTED] * 2

        assert await here(agent, job.id) == stands
        assert len(await records(agent)) == 1

    async def test_finish_repeated_after_the_next_claim_is_accepted(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        item = settlement(job, RunOutcome.INTERRUPTED)
        await agent.settle([item])
        again = await claim_one(agent)

        assert await agent.settle([item]) == [SettleAnswer.ACCEPTED]
        assert await here(agent, job.id) == again

    async def test_finish_twice_different_outcome_rejected(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job, result=b"1")
        stands = await here(agent, job.id)

        assert await settle(agent, job, result=b"2") is SettleAnswer.STALE
        assert await settle(agent, job, RunOutcome.FAILED, reason=FailReason.REJECTED) is SettleAnswer.STALE
        assert await release(agent, job) is SettleAnswer.STALE
        assert await here(agent, job.id) == stands

    async def _zombie_and_new_lease(self, store: AgentStore, agent: AgentTransport) -> tuple[Job, Job]:
        zombie = await claimed_new(agent, ttl_us=SHORT_US)
        await store.advance(SHORT)
        await agent.reap(10)
        return zombie, await claim_one(agent, worker="w2")

    async def test_zombie_ack_cannot_touch_new_lease(self, store: AgentStore, agent: AgentTransport) -> None:
        zombie, new = await self._zombie_and_new_lease(store, agent)

        assert await settle(agent, zombie) is SettleAnswer.STALE
        assert await here(agent, new.id) == new
        assert await settle(agent, new) is SettleAnswer.ACCEPTED

    async def test_zombie_term_cannot_touch_new_lease(self, store: AgentStore, agent: AgentTransport) -> None:
        zombie, new = await self._zombie_and_new_lease(store, agent)

        assert await settle(agent, zombie, RunOutcome.FAILED, reason=FailReason.REJECTED) is SettleAnswer.STALE
        assert await here(agent, new.id) == new

    async def test_zombie_nak_cannot_touch_new_lease(self, store: AgentStore, agent: AgentTransport) -> None:
        zombie, new = await self._zombie_and_new_lease(store, agent)

        for started in (False, True):
            assert await release(agent, zombie, started=started) is SettleAnswer.STALE
        assert await settle(agent, zombie, RunOutcome.INTERRUPTED) is SettleAnswer.STALE
        assert await here(agent, new.id) == new
        assert await claim(agent) == []

    async def test_finish_is_atomic_with_event_append(self, store: AgentStore, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 20)
        claimed = await claim(agent, 20)
        before = (await agent.probe()).high_water

        await agent.settle([settlement(job) for job in claimed])

        after = (await agent.probe()).high_water
        assert after - before >= 20
        written = await records(await store.open())
        assert [record.job.id for record in written if record.job] == ids(jobs)
        assert await agent.inventory("", 100) == []

    async def test_finish_after_cancel(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await agent.revoke([Revoke(job.id, job.epoch, RevokeKind.CANCEL)])

        assert await settle(agent, job) is SettleAnswer.STALE
        assert await release(agent, job, started=True) is SettleAnswer.STALE
        assert (await here(agent, job.id)).state is JobState.CANCELLED
        assert len(await records(agent)) == 1

    async def test_one_bad_item_does_not_spoil_its_batch(self, agent: AgentTransport) -> None:
        await put_new(agent, 3)
        jobs = await claim(agent, 3)
        await release(agent, jobs[1])

        answers = await agent.settle([settlement(job) for job in jobs])

        assert answers == [SettleAnswer.ACCEPTED, SettleAnswer.STALE, SettleAnswer.ACCEPTED]
        assert ids(await claim(agent)) == [jobs[1].id]

    async def test_a_start_recorded_earlier_is_the_first_start(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await agent.extend([Extension(job.id, job.token, started=True)], LONG_US)
        started = await here(agent, job.id)

        await settle(agent, started)

        ended = await here(agent, job.id)
        assert ended.first_started_us == started.first_started_us
        assert ended.started_us is None

    async def test_what_a_settle_does_not_speak_of_stays(self, agent: AgentTransport) -> None:
        job = await claimed_new(
            agent, labels=b'{"tags":["a"]}', schedule="nightly", expires_us=None, crash_count=1, snoozes=2
        )

        await settle(agent, job)

        ended = await here(agent, job.id)
        changed = ("state", "version", "first_started_us", "finished_us")
        assert without(ended, *changed) == without(job, *changed)

    async def test_a_settled_job_stays_settled_after_its_record_is_confirmed(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        item = settlement(job)
        await agent.settle([item])
        await agent.confirm([record.seq for record in await records(agent)])

        assert await agent.settle([item]) == [SettleAnswer.ACCEPTED]
        assert await settle(agent, job, result=b"2") is SettleAnswer.STALE
        assert await found(agent, job.id) is None
        assert (await put(agent, job))[0] != "stored"
