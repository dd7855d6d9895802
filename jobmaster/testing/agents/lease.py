"""Leases: how they are kept, and that a lost one stays lost."""

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import ExtendAnswer, Extension, ReapReport, Revoke, RevokeKind, SettleAnswer
from jobmaster.testing.agents.cases import (
    LONG_US,
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
    release,
    settle,
)
from jobmaster.testing.agents.harness import AgentStore, SkewedClock


class LeaseCases(AgentCases):
    async def test_extend_with_current_token(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        assert await agent.extend([Extension(job.id, job.token)], SHORT_US) == [ExtendAnswer.HELD]

        await store.advance(SHORT)
        assert (await agent.reap(10)).requeued == 1

    async def test_extend_same_value_twice_in_same_tick_is_kept(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        item = Extension(job.id, job.token)

        assert await agent.extend([item, item], LONG_US) == [ExtendAnswer.HELD] * 2
        assert await agent.extend([item], LONG_US) == [ExtendAnswer.HELD]

    async def test_extend_stale_token_rejected(self, agent: AgentTransport) -> None:
        old = await claimed_new(agent)
        await release(agent, old)
        new = await claim_one(agent)

        items = [Extension(old.id, old.token), Extension(new.id, new.token), Extension(new.id, new.token + 1)]

        assert await agent.extend(items, LONG_US) == [ExtendAnswer.LOST, ExtendAnswer.HELD, ExtendAnswer.LOST]

    async def test_extend_after_expiry_before_reap(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent, ttl_us=SHORT_US)
        await store.advance(SHORT)

        assert await agent.extend([Extension(job.id, job.token)], LONG_US) == [ExtendAnswer.LOST]
        assert (await agent.reap(10)).requeued == 1

    async def test_extend_never_revives_a_lost_lease(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent, ttl_us=SHORT_US)
        await store.advance(SHORT)
        await agent.reap(10)

        item = Extension(job.id, job.token, started=True, progress=50)
        assert await agent.extend([item], LONG_US) == [ExtendAnswer.LOST]

        stands = await here(agent, job.id)
        assert (stands.started_us, stands.progress) == (None, None)
        assert ids(await claim(agent)) == [job.id]

    async def test_extend_of_what_is_not_here_is_lost(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await settle(agent, job)
        [waiting] = await put_new(agent)

        items = [
            Extension(job.id, job.token),
            Extension(waiting.id, 1 << 32 | 1),
            Extension("00000000-0000-7000-8000-000000000000", 1),
        ]

        assert await agent.extend(items, LONG_US) == [ExtendAnswer.LOST] * 3

    async def test_extend_records_a_start_once(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        await agent.extend([Extension(job.id, job.token, started=True)], LONG_US)
        first = await here(agent, job.id)
        await store.advance(SHORT)
        await agent.extend([Extension(job.id, job.token, started=True)], LONG_US)

        assert first.started_us is not None
        assert first.first_started_us == first.started_us
        assert first.version > job.version
        assert await here(agent, job.id) == first

    async def test_extend_carries_progress(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        await agent.extend([Extension(job.id, job.token, progress=40, progress_note="page 4 of 10")], LONG_US)

        stands = await here(agent, job.id)
        assert (stands.progress, stands.progress_note) == (40, "page 4 of 10")
        assert stands.version > job.version

    async def test_a_bare_extension_writes_no_version(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)

        await agent.extend([Extension(job.id, job.token)], LONG_US)

        assert await here(agent, job.id) == job

    async def test_extend_tells_that_the_job_was_cancelled(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await agent.revoke([Revoke(job.id, job.epoch, RevokeKind.CANCEL)])

        assert await agent.extend([Extension(job.id, job.token)], LONG_US) == [ExtendAnswer.CANCELLED]

    @pytest.mark.parametrize("skew", [-3600.0, 3600.0])
    async def test_expiry_uses_store_clock_with_client_skew_of_1h(
        self, store: AgentStore, agent: AgentTransport, skew: float
    ) -> None:
        wrong = await store.open(clock=SkewedClock(skew, store.clock))
        held = await claimed_new(agent)
        await put_new(agent)
        theirs = await claim_one(wrong, worker="w2")

        assert await wrong.reap(10) == ReapReport()
        items = [Extension(held.id, held.token), Extension(theirs.id, theirs.token)]
        assert await wrong.extend(items, SHORT_US) == [ExtendAnswer.HELD] * 2
        await store.advance(SHORT)

        assert (await agent.reap(10)).requeued == 2
        assert abs(await wrong.store_now_us() - await agent.store_now_us()) < 60_000_000

    async def test_reap_is_idempotent_and_bounded(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent, 5)
        held = await claim(agent, 1)
        await claim(agent, 4, ttl_us=SHORT_US)
        await store.advance(SHORT)

        reports = [await agent.reap(3), await agent.reap(3), await agent.reap(3)]

        assert [(report.requeued, report.more) for report in reports] == [(3, True), (1, False), (0, False)]
        assert await settle(agent, held[0]) is SettleAnswer.ACCEPTED

    async def test_an_expired_lease_may_still_settle_until_it_is_taken(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        job = await claimed_new(agent, ttl_us=SHORT_US)
        await store.advance(SHORT)

        assert await settle(agent, job) is SettleAnswer.ACCEPTED
        assert await agent.reap(10) == ReapReport()
        assert len(await records(agent, job.id)) == 1
