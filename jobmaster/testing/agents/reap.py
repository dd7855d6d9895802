"""Reaping: what a lapsed lease makes of a job, and which lapses are crashes."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Extension, ReapReport, SettleAnswer
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.agents.cases import (
    SHORT,
    SHORT_US,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    here,
    ids,
    put_new,
    records,
    settle,
)
from jobmaster.testing.agents.harness import AgentStore


async def _lapse(store: AgentStore, agent: AgentTransport, job: Job, *, started: bool) -> ReapReport:
    """Let the lease of a claimed job run out, with or without a recorded start."""
    await agent.extend([Extension(job.id, job.token, started=started)], SHORT_US)
    await store.advance(SHORT)
    return await agent.reap(10)


class ReapCases(AgentCases):
    async def test_a_lapse_makes_a_job_suspect_and_counts_nothing(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        job = await claimed_new(agent)

        report = await _lapse(store, agent, job, started=False)

        assert (report.requeued, report.crashed) == (1, ())
        stands = await here(agent, job.id)
        assert (stands.state, stands.suspect) == (JobState.QUEUED, True)
        assert (stands.crash_count, stands.attempts, stands.interrupts) == (0, 0, 0)
        assert stands.version > job.version
        assert await records(agent) == []

    async def test_a_lapsed_run_is_recorded_if_its_start_was(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent, worker="w7")

        await _lapse(store, agent, job, started=True)

        [record] = await records(agent)
        assert record.run is not None
        assert (record.run.outcome, record.run.token) == (RunOutcome.LAPSED, job.token)
        assert (record.run.worker, record.run.attempt) == ("w7", 1)
        assert record.run.started_us is not None
        stands = await here(agent, job.id)
        assert record.job == stands
        assert (stands.crash_count, stands.suspect) == (0, True)

    async def test_only_lapses_of_started_suspects_are_crashes(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent, policy=Policy(max_crashes=2).encode())
        await _lapse(store, agent, job, started=True)
        counts = []
        for started in (False, True, False):
            report = await _lapse(store, agent, await claim_one(agent), started=started)
            assert report.crashed == ()
            counts.append((await here(agent, job.id)).crash_count)

        report = await _lapse(store, agent, await claim_one(agent), started=True)

        assert counts == [0, 1, 1]
        assert report.crashed == (job.id,)
        ended = await here(agent, job.id)
        assert (ended.state, ended.reason, ended.crash_count) == (JobState.FAILED, FailReason.CRASHED, 2)
        assert (ended.attempts, ended.suspect) == (0, False)
        assert await claim(agent) == []

    async def test_a_suspect_stays_one_until_it_is_terminal(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await _lapse(store, agent, job, started=False)
        retried = await claim_one(agent)
        assert retried.suspect
        await settle(agent, retried, RunOutcome.RETRY_AT)
        await agent.promote(10)

        again = await claim_one(agent)

        assert again.suspect
        await settle(agent, again)
        assert not (await here(agent, job.id)).suspect

    async def test_a_started_at_most_once_job_ends_at_its_first_lapse(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        job = await claimed_new(agent, policy=Policy(at_most_once=True).encode())

        report = await _lapse(store, agent, job, started=True)

        assert (report.requeued, report.crashed) == (0, (job.id,))
        ended = await here(agent, job.id)
        assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.CRASHED)

    async def test_an_unstarted_at_most_once_job_survives_a_lapse(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        job = await claimed_new(agent, policy=Policy(at_most_once=True).encode())

        await _lapse(store, agent, job, started=False)

        assert ids(await claim(agent)) == [job.id]

    async def test_a_dead_workers_leases_end_at_once(self, agent: AgentTransport) -> None:
        await put_new(agent, 4)
        dead = await claim(agent, 3, worker="dead")
        alive = await claim_one(agent, worker="alive")

        reports = [await agent.reap(2, frozenset({"dead", "never-seen"})) for _ in range(2)]

        assert [(report.requeued, report.more) for report in reports] == [(2, True), (1, False)]
        assert sorted(ids(await claim(agent))) == sorted(ids(dead))
        assert await settle(agent, alive) is SettleAnswer.ACCEPTED

    async def test_a_reaper_that_distrusts_time_ends_only_dead_workers_leases(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        await put_new(agent, 2)
        expired = await claim_one(agent, ttl_us=SHORT_US)
        dead = await claim_one(agent, worker="dead")
        await store.advance(SHORT)

        report = await agent.reap(10, frozenset({"dead"}), expired=False)

        assert report.requeued == 1
        assert await here(agent, expired.id) == expired
        assert ids(await claim(agent)) == [dead.id]

    async def test_an_unexpired_lease_is_left_alone(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        assert await agent.reap(10) == ReapReport()
        assert await here(agent, job.id) == job

    async def test_reaped_jobs_keep_their_place_in_line(self, store: AgentStore, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 4)
        await claim(agent, 2, ttl_us=SHORT_US)
        await store.advance(SHORT)
        await agent.reap(10)

        assert ids(await claim(agent, 4)) == ids(jobs)
