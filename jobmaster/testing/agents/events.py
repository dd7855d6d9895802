"""The outbox: every change is reported, in an order that is safe to confirm, until it is confirmed."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Amendment, Extension, PutAnswer, RecordKind, Revoke, RevokeKind
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
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
    new_job,
    put,
    put_new,
    records,
    release,
    settle,
    settlement,
)
from jobmaster.testing.agents.harness import AgentStore

RETENTION = 1_200.0
"""Seconds: twice the put window."""


class EventCases(AgentCases):
    async def test_versions_strictly_increase(self, store: AgentStore, agent: AgentTransport) -> None:
        [job] = await put_new(agent)
        seen = [(await here(agent, job.id)).version]

        async def note() -> None:
            seen.append((await here(agent, job.id)).version)

        await agent.amend([Amendment(id=job.id, version=1, priority=0)])
        await note()
        claimed = await claim_one(agent)
        await note()
        await agent.extend([Extension(job.id, claimed.token, started=True, progress=5)], LONG_US)
        await note()
        await settle(agent, claimed, RunOutcome.RETRY_AT)
        await note()
        await agent.promote(10)
        await release(agent, await claim_one(agent), started=True)
        await note()
        claimed = await claim_one(agent)
        await agent.extend([Extension(job.id, claimed.token, started=True)], SHORT_US)
        await store.advance(SHORT)
        await agent.reap(10)
        await note()
        await settle(agent, await claim_one(agent))
        await note()

        assert seen == sorted(set(seen))
        written = [record.job for record in await records(agent, job.id) if record.job]
        stamps = [(copy.epoch, copy.version) for copy in written]
        assert stamps == sorted(set(stamps))
        assert len(stamps) == 4

    async def test_a_record_holds_the_job_as_it_then_stood(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job, RunOutcome.RETRY_AT)
        retried = await here(agent, job.id)
        await agent.promote(10)
        again = await claim_one(agent)
        await settle(agent, again, result=b"2")

        first, last = await records(agent)

        assert first.job == retried
        assert last.job is not None
        assert (last.job.state, last.job.result) == (JobState.SUCCEEDED, b"2")
        assert [record.run.token for record in (first, last) if record.run] == [job.token, again.token]
        assert first.seq < last.seq

    async def test_ack_then_crash_replays(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent, 3)
        claimed = await claim(agent, 3)
        await agent.settle([settlement(job) for job in claimed])
        other = await store.open()
        seqs = [record.seq for record in await other.changes(10)]

        # Whoever read them dies before confirming: the next one reads the same.
        assert [record.seq for record in await agent.changes(10)] == seqs
        await agent.confirm(seqs[:2])
        await agent.confirm(seqs[:2])
        if agent.traits.restartable:
            await store.restart()
            agent = await store.open()

        assert [record.seq for record in await agent.changes(10)] == seqs[2:]
        await agent.confirm(seqs[2:])
        assert await agent.changes(10) == []

    async def test_poison_event_does_not_block(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        bad = make_job(now_us, data=b"\xff\x00", labels=b"\xfe", policy=b"{")
        await put(agent, bad, make_job(now_us))
        first, second = await claim(agent, 2)
        answers = await agent.settle([settlement(first, result=b"\xff", detail=b"\x00\xff"), settlement(second)])
        assert answers == ["accepted", "accepted"]

        written = await agent.changes(10)

        assert [record.job.id for record in written if record.job] == ids([bad, second])
        # The one that the master can't apply is left; the one behind it is confirmed.
        await agent.confirm([written[1].seq])
        assert [record.seq for record in await agent.changes(10)] == [written[0].seq]

    async def test_changes_are_bounded_and_in_order(self, agent: AgentTransport) -> None:
        await put_new(agent, 10)
        for job in await claim(agent, 10):
            await settle(agent, job)

        everything = [record.seq for record in await agent.changes(100)]

        assert everything == sorted(everything)
        assert [record.seq for record in await agent.changes(4)] == everything[:4]

    async def test_young_records_can_be_left_to_who_wrote_them(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job)
        await store.advance(1.0)
        late = await claimed_new(agent)
        await settle(agent, late)

        old = await agent.changes(10, older_than_us=1_000_000)

        assert [record.job.id for record in old if record.job] == [job.id]
        assert len(await agent.changes(10)) == 2

    async def test_a_job_with_effects_writes_effect_records(self, agent: AgentTransport) -> None:
        plain, effects = await claimed_new(agent), await claimed_new(agent, effects=True)
        await settle(agent, plain)
        await settle(agent, effects, RunOutcome.RETRY_AT)

        assert [record.kind for record in await records(agent)] == [RecordKind.PLAIN, RecordKind.EFFECT]

    async def test_every_run_is_recorded_exactly_once(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        tokens = []
        for outcome in (RunOutcome.RETRY_AT, RunOutcome.SNOOZED, RunOutcome.INTERRUPTED):
            tokens.append(job.token)
            item = settlement(job, outcome)
            await agent.settle([item])
            await agent.settle([item])
            await agent.promote(10)
            job = await claim_one(agent)
        await agent.extend([Extension(job.id, job.token, started=True)], SHORT_US)
        tokens.append(job.token)
        await store.advance(SHORT)
        await agent.reap(10)
        await agent.reap(10)
        await settle(agent, job)
        job = await claim_one(agent)
        tokens.append(job.token)
        await agent.revoke([Revoke(job.id, 1, RevokeKind.CANCEL)])

        assert [record.run.token for record in await records(agent) if record.run] == tokens

    async def test_the_high_water_mark_never_falls(self, store: AgentStore, agent: AgentTransport) -> None:
        marks = []
        for _ in range(3):
            await settle(agent, await claimed_new(agent))
            marks.append((await agent.probe()).high_water)
            await agent.confirm([record.seq for record in await agent.changes(10)])
            marks.append((await agent.probe()).high_water)
        if agent.traits.restartable:
            await store.restart()
            marks.append((await (await store.open()).probe()).high_water)

        assert marks == sorted(marks)
        assert len(set(marks)) == 3

    async def test_tombstones_outlive_the_window_and_the_confirmation(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        job, late = await new_job(agent), await new_job(agent)
        await put(agent, job, late)
        first, second = await claim(agent, 2)
        await settle(agent, first)
        await settle(agent, second)
        [confirmed, _] = await records(agent)
        await agent.confirm([confirmed.seq])

        assert await agent.prune(100) == 0
        assert await put(agent, job) == [PutAnswer.TOMBSTONED]
        await store.advance(RETENTION)

        assert await agent.prune(100) == 1
        assert await settle(agent, first) == "unknown"
        assert await settle(agent, second) == "accepted"
        await agent.confirm([record.seq for record in await records(agent)])
        assert await agent.prune(100) == 1
        assert await found(agent, second.id) is None

    async def test_pruning_is_bounded(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent, 5)
        await agent.settle([settlement(job) for job in await claim(agent, 5)])
        await agent.confirm([record.seq for record in await records(agent)])
        await store.advance(RETENTION)

        assert [await agent.prune(2) for _ in range(4)] == [2, 2, 1, 0]
