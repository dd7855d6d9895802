"""Giving leases back."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Extension, SettleAnswer
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.agents.cases import (
    LONG_US,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    here,
    ids,
    put_new,
    records,
    release,
)


class ReleaseCases(AgentCases):
    async def test_an_unstarted_job_is_claimable_at_once_in_its_old_order(self, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 5)
        claimed = await claim(agent, 3)

        for job in reversed(claimed):
            assert await release(agent, job) is SettleAnswer.ACCEPTED

        assert await records(agent) == []
        again = await claim(agent, 5)
        assert ids(again) == ids(jobs)
        assert {(job.interrupts, job.attempts, job.suspect) for job in again} == {(0, 0, False)}

    async def test_a_started_job_is_recorded_as_interrupted(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        assert await release(agent, job, started=True) is SettleAnswer.ACCEPTED

        [record] = await records(agent)
        assert record.run is not None
        assert (record.run.outcome, record.run.token) == (RunOutcome.INTERRUPTED, job.token)
        assert (record.run.started_us, record.run.worker, record.run.host) == (job.due_us, "w1", "host-1")
        assert record.job == await here(agent, job.id)
        again = await claim_one(agent)
        assert (again.interrupts, again.attempts, again.suspect) == (1, 0, False)

    async def test_a_start_the_store_knows_of_counts_though_the_worker_forgot(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await agent.extend([Extension(job.id, job.token, started=True)], LONG_US)

        await release(agent, job, started=False)

        assert (await here(agent, job.id)).interrupts == 1
        assert len(await records(agent)) == 1

    async def test_a_started_at_most_once_job_ends_crashed(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent, policy=Policy(at_most_once=True).encode())

        await release(agent, job, started=True)

        ended = await here(agent, job.id)
        assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.CRASHED)
        assert await claim(agent) == []

    async def test_an_unstarted_at_most_once_job_is_ready_again(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent, policy=Policy(at_most_once=True).encode())

        await release(agent, job)

        assert ids(await claim(agent)) == [job.id]

    async def test_beyond_the_cap_a_started_job_ends_exhausted(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent, policy=Policy(max_interrupts=2).encode())
        for _ in range(2):
            await release(agent, job, started=True)
            job = await claim_one(agent)

        await release(agent, job, started=True)

        ended = await here(agent, job.id)
        assert (ended.state, ended.reason, ended.interrupts) == (JobState.FAILED, FailReason.EXHAUSTED, 3)
        assert len(await records(agent, job.id)) == 3

    async def test_a_repeated_release_is_accepted_and_changes_nothing(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        assert await release(agent, job, started=True) is SettleAnswer.ACCEPTED
        stands = await here(agent, job.id)
        assert await release(agent, job, started=True) is SettleAnswer.ACCEPTED
        assert await release(agent, job, started=False) is SettleAnswer.STALE

        assert await here(agent, job.id) == stands
        assert len(await records(agent)) == 1
