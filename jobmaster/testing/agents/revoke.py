"""Taking jobs back: by epoch, fenced at once, and remembered."""

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import (
    ExtendAnswer,
    Extension,
    PutAnswer,
    RecordKind,
    Revocation,
    Revoke,
    RevokeAnswer,
    RevokeKind,
    SettleAnswer,
)
from jobmaster.model.ids import new_id
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import (
    HOUR_US,
    LONG_US,
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
    settle,
)

REVOKED = Revocation(RevokeAnswer.REVOKED)
ABSENT = Revocation(RevokeAnswer.ABSENT)
BOTH = pytest.mark.parametrize("kind", list(RevokeKind))


async def revoke(agent: AgentTransport, job_id: str, epoch: int, kind: RevokeKind) -> Revocation:
    [answer] = await agent.revoke([Revoke(job_id, epoch, kind)])
    return answer


class RevokeCases(AgentCases):
    async def test_a_cancel_at_another_version_changes_nothing(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        running = await claim_one(agent)
        for version in (job.version, running.version + 1):
            [answer] = await agent.revoke([Revoke(job.id, 1, RevokeKind.CANCEL, version)])
            assert answer == Revocation(RevokeAnswer.CHANGED)
        for epoch, job_id in ((2, job.id), (1, new_id())):
            [answer] = await agent.revoke([Revoke(job_id, epoch, RevokeKind.CANCEL, running.version)])
            assert answer == Revocation(RevokeAnswer.CHANGED)
        assert await records(agent) == []
        exactly = Revoke(job.id, 1, RevokeKind.CANCEL, running.version)
        [first] = await agent.revoke([exactly])
        assert (first.answer, first.was_running) == (RevokeAnswer.REVOKED, True)
        assert await agent.revoke([exactly]) == [first]
        assert len(await records(agent)) == 1

    @pytest.mark.parametrize("delay_us", [0, HOUR_US])
    async def test_cancel_of_a_waiting_job(self, agent: AgentTransport, delay_us: int) -> None:
        now_us = await agent.store_now_us()
        job = make_job(now_us, due_us=now_us + delay_us)
        await put(agent, job)

        assert await revoke(agent, job.id, 1, RevokeKind.CANCEL) == REVOKED

        [record] = await records(agent)
        assert record.kind is RecordKind.EFFECT
        assert record.job is not None
        assert (record.job.state, record.job.version) == (JobState.CANCELLED, job.version + 1)
        assert record.job.finished_us is not None
        assert record.run is None
        assert await agent.inventory("", 10) == []

    async def test_move_of_a_waiting_job(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent, attempts=2, error="earlier")

        assert await revoke(agent, job.id, 1, RevokeKind.MOVE) == REVOKED

        [record] = await records(agent)
        assert record.kind is RecordKind.EFFECT
        assert record.job is not None
        assert (record.job.state, record.job.version, record.job.epoch) == (JobState.HELD, job.version + 1, 1)
        assert (record.job.attempts, record.job.error, record.job.data) == (2, "earlier", job.data)
        assert record.job.finished_us is None
        assert await claim(agent) == []

    async def test_cancel_of_a_running_job_fences_at_once(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent, worker="w7")

        answer = await revoke(agent, job.id, 1, RevokeKind.CANCEL)

        assert answer == Revocation(RevokeAnswer.REVOKED, was_running=True, worker="w7")
        assert await settle(agent, job) is SettleAnswer.STALE
        assert await agent.extend([Extension(job.id, job.token)], LONG_US) == [ExtendAnswer.CANCELLED]
        [record] = await records(agent)
        assert record.job is not None
        assert record.run is not None
        assert record.job.state is JobState.CANCELLED
        assert (record.run.outcome, record.run.token, record.run.worker) == (RunOutcome.CANCELLED, job.token, "w7")

    async def test_move_of_a_running_job_changes_nothing(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        answer = await revoke(agent, job.id, 1, RevokeKind.MOVE)

        assert answer.answer is RevokeAnswer.RUNNING
        assert await here(agent, job.id) == job
        assert await records(agent) == []
        assert await settle(agent, job) is SettleAnswer.ACCEPTED

    @BOTH
    async def test_an_ended_job_answers_settled(self, agent: AgentTransport, kind: RevokeKind) -> None:
        job = await claimed_new(agent)
        await settle(agent, job)

        assert (await revoke(agent, job.id, 1, kind)).answer is RevokeAnswer.SETTLED
        assert len(await records(agent)) == 1

    @BOTH
    async def test_a_superseded_epoch_answers_settled(self, agent: AgentTransport, kind: RevokeKind) -> None:
        [job] = await put_new(agent, epoch=3)

        assert (await revoke(agent, job.id, 2, kind)).answer is RevokeAnswer.SETTLED
        assert ids(await claim(agent)) == [job.id]
        assert await records(agent) == []

    @BOTH
    async def test_an_id_never_seen_cannot_come_any_more(self, agent: AgentTransport, kind: RevokeKind) -> None:
        job_id = new_id()

        assert await revoke(agent, job_id, 2, kind) == ABSENT

        [record] = await records(agent)
        assert (record.kind, record.job, record.run) == (RecordKind.EFFECT, None, None)
        assert record.revoked == Revoke(job_id, 2, kind)
        now_us = await agent.store_now_us()
        late = [make_job(now_us, id=job_id, epoch=epoch) for epoch in (1, 2, 3)]
        answers = [(await put(agent, job))[0] for job in late]
        assert answers == [PutAnswer.TOMBSTONED, PutAnswer.TOMBSTONED, PutAnswer.STORED]
        assert await revoke(agent, job_id, 2, kind) != REVOKED

    async def test_an_epoch_that_never_came_takes_an_earlier_one_with_it(self, agent: AgentTransport) -> None:
        [old] = await put_new(agent)

        assert (await revoke(agent, old.id, 2, RevokeKind.MOVE)).answer is RevokeAnswer.ABSENT

        assert await claim(agent) == []
        [record] = await records(agent)
        assert (record.job, record.revoked) == (None, Revoke(old.id, 2, RevokeKind.MOVE))

    @BOTH
    async def test_a_repeated_revoke_gets_the_first_answer(self, agent: AgentTransport, kind: RevokeKind) -> None:
        [waiting] = await put_new(agent)
        unseen = new_id()
        items = [Revoke(waiting.id, 1, kind), Revoke(unseen, 1, kind)]
        first = await agent.revoke(items)

        assert await agent.revoke(items) == first == [REVOKED, ABSENT]
        assert await agent.revoke([items[0], items[0]]) == [REVOKED] * 2
        assert len(await records(agent)) == 2

    async def test_a_repeated_cancel_of_a_running_job_gets_the_first_answer(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        first = await revoke(agent, job.id, 1, RevokeKind.CANCEL)

        assert await revoke(agent, job.id, 1, RevokeKind.CANCEL) == first
        assert (await revoke(agent, job.id, 1, RevokeKind.MOVE)).answer is RevokeAnswer.SETTLED

    async def test_a_redriven_job_can_be_revoked_in_its_new_epoch(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        await revoke(agent, job.id, 1, RevokeKind.MOVE)
        await put(agent, make_job(job.due_us, id=job.id, epoch=2, version=5))

        assert await revoke(agent, job.id, 1, RevokeKind.CANCEL) == Revocation(RevokeAnswer.SETTLED)
        assert await revoke(agent, job.id, 2, RevokeKind.CANCEL) == REVOKED

    async def test_a_parked_job_can_be_revoked(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent, handler="nobodys")
        await agent.park(frozenset(), 10)

        assert await revoke(agent, job.id, 1, RevokeKind.CANCEL) == REVOKED
        assert await agent.stats() == []

    @pytest.mark.parametrize("size", [500, 5_000])
    async def test_revokes_of_any_number(self, agent: AgentTransport, size: int) -> None:
        jobs = await put_new(agent, size)

        answers = await agent.revoke([Revoke(job.id, 1, RevokeKind.CANCEL) for job in jobs])

        assert answers == [REVOKED] * size
        assert len(await records(agent)) == size


class WithdrawCases(AgentCases):
    async def test_withdraw_moves_the_waiting_jobs_of_a_lane_in_id_order(self, agent: AgentTransport) -> None:
        running = await claimed_new(agent)
        waiting = await put_new(agent, 3)
        [other] = await put_new(agent, lane="other")

        first = await agent.withdraw("default", 2)
        rest = await agent.withdraw("default", 10)

        assert first + rest == ids(waiting)
        assert [item.id for item in await agent.inventory("", 10)] == sorted([running.id, other.id])
        written = await records(agent)
        assert {record.job.state for record in written if record.job} == {JobState.HELD}
        assert {record.kind for record in written} == {RecordKind.EFFECT}

    async def test_withdraw_of_all_lanes(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        jobs = [
            make_job(now_us),
            make_job(now_us, lane="other", due_us=now_us + HOUR_US),
            make_job(now_us, handler="nobodys"),
        ]
        await put(agent, *jobs)
        await agent.park(frozenset({"send-welcome"}), 10)

        assert await agent.withdraw(None, 10) == ids(jobs)
        assert await agent.withdraw(None, 10) == []

    async def test_a_withdrawn_job_returns_only_in_a_higher_epoch(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        await agent.withdraw(None, 10)

        assert await put(agent, job) == [PutAnswer.TOMBSTONED]
        assert await revoke(agent, job.id, 1, RevokeKind.MOVE) == REVOKED
        assert await put(agent, make_job(job.due_us, id=job.id, epoch=2, version=3)) == [PutAnswer.STORED]
        assert (await claim_one(agent)).epoch == 2
