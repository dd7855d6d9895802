"""Claiming: who gets which job, in which order, and that nobody else gets it too."""

import asyncio
import time

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Control, ControlKind, PutAnswer, SettleAnswer
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.priority import Priority
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.agents.cases import (
    HANDLER,
    HANDLERS,
    HOUR_US,
    LANE,
    LONG_US,
    SHORT,
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
    settle,
    settlement,
    without,
)
from jobmaster.testing.agents.harness import AgentStore, skip


class ClaimCases(AgentCases):
    async def test_returns_each_job_once_under_16_claimers(self, store: AgentStore, agent: AgentTransport) -> None:
        jobs = await put_new(agent, 200)
        handles = [agent, await store.open(), await store.open(), await store.open()]

        async def drain(number: int) -> list[str]:
            mine: list[str] = []
            while batch := await claim(handles[number % 4], 7, worker=f"w{number}"):
                mine += ids(batch)
            return mine

        claimed = await asyncio.gather(*(drain(number) for number in range(16)))
        # A claimer may see nothing while others hold rows in passing; whoever comes last sees the rest.
        rest = await drain(16)

        assert sorted(sum(claimed, rest)) == sorted(ids(jobs))

    async def test_respects_priority_then_fifo(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        ranks = [Priority.LOW, Priority.HIGH, Priority.MEDIUM, Priority.HIGH, Priority.LOW, Priority.CRITICAL]
        jobs = [make_job(now_us, priority=rank) for rank in ranks]
        for job in jobs:
            await put(agent, job)

        claimed = [(await claim_one(agent)).id for _ in jobs]

        assert claimed == ids([jobs[number] for number in (5, 1, 3, 2, 0, 4)])

    async def test_a_batch_is_handed_out_in_the_same_order(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        jobs = [make_job(now_us, priority=rank) for rank in (3, 1, 2, 1, 3, 0)]
        await put(agent, *jobs)

        assert ids(await claim(agent, 4)) == ids([jobs[number] for number in (5, 1, 3, 2)])
        assert ids(await claim(agent, 4)) == ids([jobs[0], jobs[4]])

    async def test_run_at_not_before_store_now(self, store: AgentStore, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        far, near = make_job(now_us, due_us=now_us + HOUR_US), make_job(now_us, due_us=now_us + 100_000)
        await put(agent, far, near)
        await agent.promote(100)
        early = ids(await claim(agent))
        assert not early or await agent.store_now_us() >= near.due_us

        await store.advance(0.1)
        await agent.promote(100)

        assert early + ids(await claim(agent)) == [near.id]

    async def test_limit_is_never_exceeded(self, agent: AgentTransport) -> None:
        await put_new(agent, 30)
        await put_new(agent, 30, lane="other")

        for limit in (1, 7, 20):
            claimed = await agent.claim("w1", {LANE: 100, "other": 100}, HANDLERS, limit, LONG_US)
            assert len(claimed) == limit
        assert await agent.claim("w1", {LANE: 100}, HANDLERS, 0, LONG_US) == []

    async def test_quotas_hold_per_lane(self, agent: AgentTransport) -> None:
        for lane in ("a", "b", "c"):
            await put_new(agent, 5, lane=lane)

        claimed = await agent.claim("w1", {"a": 2, "b": 3, "c": 0}, HANDLERS, 10, LONG_US)

        assert sorted(job.lane for job in claimed) == ["a", "a", "b", "b", "b"]

    async def test_lanes_match_exactly(self, agent: AgentTransport) -> None:
        await put_new(agent, lane="mail")

        for other in ("mai", "mails", "mail_", "m", LANE):
            assert await claim(agent, lane=other) == []
        assert len(await claim(agent, lane="mail")) == 1

    async def test_only_known_handlers_are_handed_out(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent, 3, handler="somebody-elses", priority=Priority.CRITICAL)
        [mine] = await put_new(agent, priority=Priority.VERY_LOW)

        assert ids(await claim(agent)) == [mine.id]
        assert await agent.claim("w1", {LANE: 10}, frozenset(), 10, LONG_US) == []
        if not agent.traits.parks:
            # Who met them without knowing them kept them from the lane for a while.
            await store.advance(1.0)
        assert len(await agent.claim("w1", {LANE: 10}, frozenset({"somebody-elses", HANDLER}), 10, LONG_US)) == 3

    async def test_several_handlers_share_one_order(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        jobs = [make_job(now_us, handler=name) for name in ("b", "a", "c", "a", "b")]
        await put(agent, *jobs)

        claimed = await agent.claim("w1", {LANE: 4}, frozenset({"a", "b", "c"}), 4, LONG_US)

        assert ids(claimed) == ids(jobs[:4])

    async def test_claim_does_not_block_producers(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent, 50)
        producer = await store.open()
        stop = asyncio.Event()

        async def consume() -> None:
            while not stop.is_set():
                await claim(agent, 3)

        consumer = asyncio.create_task(consume())
        async with asyncio.timeout(20):
            for _ in range(20):
                await put_new(producer, 2)
        stop.set()
        await consumer
        claimed = 0
        while batch := await claim(agent, 100):
            claimed += len(batch)
        [stats] = await agent.stats()
        assert (stats.ready, stats.leased) == (0, 90), claimed

    async def test_claims_are_parallel_not_serialised(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent, 50)
        other = await store.open()

        held = await claim(agent, 5, worker="a")
        rest = await claim(other, 100, worker="b")

        assert (len(held), len(rest)) == (5, 45)

    async def test_a_claimed_job_is_running_with_a_new_token(self, agent: AgentTransport) -> None:
        [job] = await put_new(agent)

        first = await claim_one(agent, worker="w7")

        assert (first.state, first.worker, first.started_us) == (JobState.RUNNING, "w7", None)
        assert (first.claim_seq, first.version, first.epoch) == (job.claim_seq + 1, job.version + 1, job.epoch)
        changed = ("state", "worker", "claim_seq", "version", "agent")
        assert without(first, *changed) == without(job, *changed)
        assert first.agent == agent.name
        assert await here(agent, job.id) == first

    async def test_token_strictly_increases_with_every_lease(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        tokens = [job.token]
        for outcome in (RunOutcome.RETRY_AT, RunOutcome.SNOOZED, RunOutcome.INTERRUPTED):
            await settle(agent, job, outcome)
            await agent.promote(10)
            job = await claim_one(agent, ttl_us=1)
            tokens.append(job.token)
        await store.advance(SHORT)
        await agent.reap(10)
        tokens.append((await claim_one(agent)).token)

        assert tokens == sorted(set(tokens))

    async def test_token_strictly_increases_across_restart(self, store: AgentStore, agent: AgentTransport) -> None:
        if not agent.traits.restartable:
            skip("trait restartable is false: nothing is left after a restart")
        before = await claimed_new(agent, ttl_us=1)
        await store.restart()
        agent = await store.open()
        await store.advance(SHORT)
        await agent.reap(10)

        after = await claim_one(agent)

        assert after.id == before.id
        assert after.token > before.token
        assert await settle(agent, before) is SettleAnswer.STALE

    async def test_token_not_reused_after_store_rewind(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent)
        async with await store.rewind():
            before = await claim_one(agent)
        agent = await store.open()

        # The store forgot the claim. Whoever puts a rewound store back to work gives every row a higher epoch first.
        [row] = await agent.inventory("", 10)
        job = await here(agent, row.id)
        raised = make_job(job.created_us, id=job.id, epoch=job.epoch + 1, version=job.version + 1, data=job.data)
        assert await put(agent, raised) == [PutAnswer.STORED]
        after = await claim_one(agent)

        assert after.token > before.token
        assert await settle(agent, before) is SettleAnswer.STALE

    async def test_undecodable_row_is_quarantined_alone(self, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        good = [make_job(now_us) for _ in range(2)]
        bad = make_job(now_us, data=b"\xff{not json", policy=b"\xff[", labels=b"\x00")
        await put(agent, good[0], bad, good[1])

        claimed = await claim(agent, 3)
        assert ids(claimed) == ids([good[0], bad, good[1]])
        assert claimed[1].data == bad.data
        answers = await agent.settle(
            [
                settlement(claimed[0]),
                settlement(claimed[1], RunOutcome.FAILED, reason=FailReason.UNDECODABLE),
                settlement(claimed[2]),
            ]
        )

        assert answers == [SettleAnswer.ACCEPTED] * 3
        ended = await here(agent, bad.id)
        assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.UNDECODABLE)

    async def test_a_damaged_row_does_not_hold_up_its_neighbours(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        jobs = await put_new(agent, 3)
        await store.corrupt(jobs[0].id)

        claimed = ids(await claim(agent, 3))

        assert claimed[-2:] == ids(jobs[1:])

    async def test_a_job_past_its_expiry_is_not_handed_out(self, store: AgentStore, agent: AgentTransport) -> None:
        now_us = await agent.store_now_us()
        job = await new_job(agent, expires_us=now_us + 1_000)
        await put(agent, job)
        await store.advance(SHORT)

        assert await claim(agent) == []

        await agent.promote(10)
        ended = await here(agent, job.id)
        assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.EXPIRED)
        assert len(await records(agent, job.id)) == 1

    async def test_a_paused_lane_or_store_yields_nothing(self, agent: AgentTransport) -> None:
        await put_new(agent)

        await agent.control(Control(ControlKind.PAUSE_LANE, LANE))
        assert await claim(agent) == []
        await agent.control(Control(ControlKind.RESUME_LANE, LANE))
        for kind in (ControlKind.PAUSE, ControlKind.DRAIN, ControlKind.QUARANTINE):
            await agent.control(Control(kind))
            assert await claim(agent) == []
        await agent.control(Control(ControlKind.RESUME))

        assert len(await claim(agent)) == 1

    @pytest.mark.parametrize("size", [1, 500, 5_000])
    async def test_batches_of_any_size(self, agent: AgentTransport, size: int) -> None:
        jobs = await put_new(agent, size)

        claimed = await claim(agent, size)

        assert ids(claimed) == ids(jobs)
        assert await agent.settle([settlement(job) for job in claimed]) == [SettleAnswer.ACCEPTED] * size
        seqs = [record.seq for record in await agent.changes(size + 1)]
        assert len(seqs) == size
        await agent.confirm(seqs)
        assert await agent.changes(10) == []
        assert await found(agent, jobs[0].id) is None

    async def test_10k_backlog_claim_p99_is_bounded(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent, 10_000)
        times = []
        for _ in range(100):
            began = time.perf_counter()
            assert len(await claim(agent)) == 10
            times.append(time.perf_counter() - began)

        assert sorted(times)[98] < store.claim_p99_seconds
