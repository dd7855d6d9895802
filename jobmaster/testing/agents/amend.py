"""Amending waiting jobs, guarded by the version the caller saw."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import AmendAnswer, Amendment
from jobmaster.model.ids import new_id
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.priority import Priority
from jobmaster.testing.agents.cases import (
    HOUR_US,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    here,
    ids,
    make_job,
    put,
    put_new,
    settle,
    without,
)


async def amend(agent: AgentTransport, item: Amendment) -> AmendAnswer:
    [answer] = await agent.amend([item])
    return answer


class AmendCases(AgentCases):
    async def test_fields_given_change_and_others_stay(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        stood = await here(agent, job.id)

        item = Amendment(
            id=job.id, version=1, due_us=job.due_us - 7, priority=Priority.CRITICAL, lane="fast", data=b'"new"'
        )
        assert await amend(agent, item) is AmendAnswer.CHANGED

        stands = await here(agent, job.id)
        assert (stands.due_us, stands.priority, stands.lane, stands.data) == (job.due_us - 7, 0, "fast", b'"new"')
        assert stands.version == 2
        changed = ("due_us", "priority", "lane", "data", "version")
        assert without(stands, *changed) == without(stood, *changed)
        assert await claim(agent) == []
        assert ids(await claim(agent, lane="fast")) == [job.id]

    async def test_another_version_is_a_conflict(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        await amend(agent, Amendment(id=job.id, version=1, priority=0))

        assert await amend(agent, Amendment(id=job.id, version=1, priority=3)) is AmendAnswer.CONFLICT
        assert await amend(agent, Amendment(id=job.id, version=7, priority=3)) is AmendAnswer.CONFLICT
        assert (await here(agent, job.id)).priority == 0

    async def test_a_leased_job_answers_running(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        assert await amend(agent, Amendment(id=job.id, version=job.version, priority=0)) is AmendAnswer.RUNNING
        assert await here(agent, job.id) == job

    async def test_what_is_not_here_is_unknown(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job)

        assert await amend(agent, Amendment(id=job.id, version=3, priority=0)) is AmendAnswer.UNKNOWN
        assert await amend(agent, Amendment(id=new_id(), version=1, priority=0)) is AmendAnswer.UNKNOWN

    async def test_rescheduling_moves_a_job_between_ready_and_delayed(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        later_us = job.due_us + HOUR_US

        await amend(agent, Amendment(id=job.id, version=1, due_us=later_us))
        await agent.promote(10)
        assert await claim(agent) == []
        [stats] = await agent.stats()
        assert (stats.ready, stats.delayed) == (0, 1)

        await amend(agent, Amendment(id=job.id, version=2, due_us=job.due_us))
        await agent.promote(10)
        assert ids(await claim(agent)) == [job.id]

    async def test_a_new_priority_takes_effect_at_the_next_claim(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        jobs = [make_job(now_us, priority=Priority.HIGH) for _ in range(3)]
        await put(agent, *jobs)

        await agent.amend([Amendment(id=jobs[2].id, version=1, priority=Priority.CRITICAL)])

        assert ids(await claim(agent)) == ids([jobs[2], jobs[0], jobs[1]])

    async def test_a_delayed_retry_can_be_hastened(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job, RunOutcome.RETRY_AT, after_us=HOUR_US)
        waiting = await here(agent, job.id)

        await amend(agent, Amendment(id=job.id, version=waiting.version, due_us=job.due_us))
        await agent.promote(10)

        assert (await claim_one(agent)).attempt == 2

    async def test_a_batch_answers_item_by_item(self, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 2)
        items = [
            Amendment(id=jobs[0].id, version=1, priority=0),
            Amendment(id=jobs[0].id, version=2, priority=1),
            Amendment(id=new_id(), version=1, priority=0),
            Amendment(id=jobs[1].id, version=2, priority=0),
        ]

        assert await agent.amend(items) == [
            AmendAnswer.CHANGED,
            AmendAnswer.CHANGED,
            AmendAnswer.UNKNOWN,
            AmendAnswer.CONFLICT,
        ]
