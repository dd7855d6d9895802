"""Operation: lost connections, repeats, restarts, neighbours in one store, unsafe settings."""

from collections.abc import Awaitable, Callable

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import ExtendAnswer, Extension, PutAnswer, Release, SettleAnswer
from jobmaster.model.errors import Indeterminate, NameInvalid, Refused, UnsafeStore
from jobmaster.model.names import check_name
from jobmaster.model.outcome import RunOutcome
from jobmaster.testing.agents.cases import (
    HANDLERS,
    LONG_US,
    AgentCases,
    claim,
    claim_one,
    claimed_new,
    here,
    ids,
    make_job,
    new_job,
    put,
    put_new,
    records,
    release,
    settlement,
)
from jobmaster.testing.agents.harness import AgentStore, skip

POINTS = pytest.mark.parametrize("point", ["before", "during", "after"])

HOSTILE_NAMES = (
    "",
    " ",
    "a ",
    "A",
    "á",
    "a\u0000b",
    "a\nb",
    "a\r\nPUB x 0",
    "*",
    ">",
    "a.*.b",
    "../../etc/passwd",
    "$JS.API.STREAM.DELETE.X",
    "'; DROP TABLE jobs;--",
    "a`b",
    "a%",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "\u202eabc",
    "\x1b[2J",
    "👩",
    "a" * 49,
    "a" * 5_000,
)

ALLOWED_NAMES = ("a", "0", "a-b_c", "null", "default", "all", "select", "a" * 48)


class OpsCases(AgentCases):
    @POINTS
    async def test_kill_connection_mid_claim(self, store: AgentStore, agent: AgentTransport, point: str) -> None:
        await put_new(agent, 3)
        broken = await store.failing("claim", point)

        failure: Exception | None = None
        try:
            claimed = len(await claim(broken, 3))
        except (Refused, Indeterminate) as error:
            failure, claimed = error, 0
        else:
            # A transport that knows that nothing was applied may ask again by itself.
            assert point != "after"
            assert claimed == 3

        # What a lost answer had claimed lapses like any lease nobody keeps.
        leased = sum(stats.leased for stats in await agent.stats())
        assert leased == claimed or isinstance(failure, Indeterminate)
        assert leased + len(await claim(agent, 3)) == 3

    @POINTS
    async def test_kill_connection_mid_extend(self, store: AgentStore, agent: AgentTransport, point: str) -> None:
        job = await claimed_new(agent)
        broken = await store.failing("extend", point)
        item = Extension(job.id, job.token, started=True)

        failure: Exception | None = None
        try:
            answers = await broken.extend([item], LONG_US)
        except (Refused, Indeterminate) as error:
            failure = error
        else:
            # A transport that knows that nothing was applied may ask again by itself.
            assert point != "after"
            assert answers == [ExtendAnswer.HELD]

        applied = (await here(agent, job.id)).started_us is not None
        assert applied or failure is not None
        assert not applied or failure is None or isinstance(failure, Indeterminate)
        assert await agent.extend([item], LONG_US) == [ExtendAnswer.HELD]

    @POINTS
    async def test_kill_connection_mid_finish(self, store: AgentStore, agent: AgentTransport, point: str) -> None:
        job = await claimed_new(agent)
        broken = await store.failing("settle", point)

        failure: Exception | None = None
        try:
            answers = await broken.settle([settlement(job)])
        except (Refused, Indeterminate) as error:
            failure = error
        else:
            # As with a claim.
            assert point != "after"
            assert answers == [SettleAnswer.ACCEPTED]

        applied = bool(await records(agent))
        assert applied or failure is not None
        assert not applied or failure is None or isinstance(failure, Indeterminate)
        assert await agent.settle([settlement(job)]) == [SettleAnswer.ACCEPTED]
        assert len(await records(agent)) == 1

    async def test_indeterminate_then_retry_converges(self, store: AgentStore, agent: AgentTransport) -> None:
        other = await store.open()
        job = await new_job(agent)

        assert await put(agent, job) == [PutAnswer.STORED]
        assert await put(other, job) == [PutAnswer.DUPLICATE]
        claimed = await claim_one(agent)
        items = [Extension(job.id, claimed.token, started=True)]
        assert await agent.extend(items, LONG_US) == await other.extend(items, LONG_US) == [ExtendAnswer.HELD]
        assert await release(agent, claimed, started=True) is SettleAnswer.ACCEPTED
        assert await release(other, claimed, started=True) is SettleAnswer.ACCEPTED
        claimed = await claim_one(other)
        item = settlement(claimed, RunOutcome.RETRY_AT)
        assert await agent.settle([item]) == await other.settle([item]) == [SettleAnswer.ACCEPTED]
        await agent.promote(10)
        done = settlement(await claim_one(agent))
        assert await agent.settle([done]) == await other.settle([done]) == [SettleAnswer.ACCEPTED]

        assert len(await records(agent)) == 3

    async def test_restart_store(self, store: AgentStore, agent: AgentTransport) -> None:
        if not agent.traits.restartable:
            skip("trait restartable is false: nothing is left after a restart")
        jobs = await put_new(agent, 3)
        held = await claim_one(agent)
        incarnation = (await agent.probe()).incarnation

        await store.restart()
        agent = await store.open()

        assert (await agent.probe()).incarnation == incarnation
        assert await agent.settle([settlement(held)]) == [SettleAnswer.ACCEPTED]
        assert ids(await claim(agent)) == ids(jobs[1:])

    async def test_a_store_that_does_not_survive_has_a_new_incarnation(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        if agent.traits.restartable:
            skip("trait restartable is true: the store survives")
        await put_new(agent)
        incarnation = (await agent.probe()).incarnation

        await store.restart()
        agent = await store.open()

        report = await agent.probe()
        assert report.incarnation != incarnation
        assert await agent.inventory("", 10) == []
        assert not agent.traits.durable
        assert report.findings

    async def test_durability_probe_refuses_unsafe(self, store: AgentStore) -> None:
        agent = await store.unsafe()

        with pytest.raises(UnsafeStore):
            await agent.open()

    async def test_queue_name_fuzz_rejected_before_transport(self, agent: AgentTransport) -> None:
        for name in HOSTILE_NAMES:
            with pytest.raises(NameInvalid):
                check_name("lane", name)
        for name in ALLOWED_NAMES:
            check_name("lane", name)
            [job] = await put_new(agent, lane=name)
            assert ids(await claim(agent, lane=name)) == [job.id]

    async def test_two_clusters_same_store_are_invisible_to_each_other(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        others = [await store.open(cluster=f"{store.cluster}-2"), await store.open(name=f"{store.name}-2")]
        job = await claimed_new(agent)

        for other in others:
            assert await claim(other) == []
            assert await other.find([job.id]) == [None]
            assert await other.settle([settlement(job)]) == [SettleAnswer.UNKNOWN]
            assert await other.stats() == []
            assert await put(other, job) == [PutAnswer.STORED]
            await other.withdraw(None, 10)
        assert await agent.settle([settlement(job)]) == [SettleAnswer.ACCEPTED]
        assert len(await records(agent)) == 1

    async def test_handles_on_one_store_see_each_others_jobs(self, store: AgentStore, agent: AgentTransport) -> None:
        other = await store.open()
        jobs = await put_new(agent, 2)

        assert ids(await claim(other, 1)) == [jobs[0].id]
        assert ids(await claim(agent)) == [jobs[1].id]
        assert (await other.probe()).incarnation == (await agent.probe()).incarnation

    async def test_closing_one_handle_leaves_the_other_working(self, store: AgentStore, agent: AgentTransport) -> None:
        other = await store.open()
        await put_new(other)
        await other.close()
        await other.close()

        assert len(await claim(agent)) == 1

    async def test_a_closed_handle_refuses(self, store: AgentStore, agent: AgentTransport) -> None:
        other = await store.open()
        await other.close()

        with pytest.raises(Refused):
            await other.claim("w1", {"default": 1}, HANDLERS, 1, LONG_US)

    async def test_a_store_that_became_another_is_not_worked_with(
        self, store: AgentStore, agent: AgentTransport
    ) -> None:
        job = await claimed_new(agent)
        await store.reincarnate()
        now_us = await agent.store_now_us()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: agent.claim("w1", {"default": 1}, HANDLERS, 1, LONG_US),
            lambda: agent.put([make_job(now_us)], now_us + LONG_US),
            lambda: agent.extend([Extension(job.id, job.token)], LONG_US),
            lambda: agent.settle([settlement(job)]),
            lambda: agent.release([Release(job.id, job.token)]),
        ]

        for call in calls:
            with pytest.raises(Refused, match=agent.name):
                await call()

        other = await store.open()
        assert await here(other, job.id) == job
        assert await other.settle([settlement(job)]) == [SettleAnswer.ACCEPTED]

    async def test_probe_changes_nothing(self, agent: AgentTransport) -> None:
        assert await agent.probe() == await agent.probe()

    @pytest.mark.parametrize("verb", ["claim", "settle", "extend", "reap", "promote", "stats", "changes"])
    async def test_explain_uses_index_no_filesort(self, store: AgentStore, agent: AgentTransport, verb: str) -> None:
        assert await store.plans(verb) == []
