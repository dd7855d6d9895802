"""No two agents may ever hold one job, whatever fails."""

from datetime import timedelta
from typing import Any

import pytest

from jobmaster.client.placing import TRIES
from jobmaster.enqueue import Enqueue
from jobmaster.model.errors import AgentUnreachable, Indeterminate, MasterUnavailable
from jobmaster.model.states import JobState
from jobmaster.settings import WorkerSettings
from jobmaster.telemetry.probes import probes
from tests.unit.scheduler.kit import Kit, SendWelcome, Welcome, opened

pytestmark = pytest.mark.asyncio


class Fault:
    """Makes one verb of a store fail, before or after it did its work."""

    def __init__(self, store: Any, verb: str, error: Exception, times: int = 1_000, applied: bool = False) -> None:
        self.calls = 0
        self._original = getattr(store, verb)
        self._error = error
        self._times = times
        self._applied = applied
        setattr(store, verb, self)

    async def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls > self._times:
            return await self._original(*arguments)
        if self._applied:
            await self._original(*arguments)
        raise self._error


async def without_time(kit: Kit) -> None:
    async def at_once(seconds: float) -> None:
        kit.clock.advance(seconds)

    kit.clock.sleep = at_once  # type: ignore[method-assign]


async def count_on(kit: Kit, agent: str) -> int:
    return len(await kit.transports[agent].inventory("", 1_000))


async def test_an_agent_that_refused_is_passed_over_for_another() -> None:
    async with opened(("a", "b")) as kit:
        Fault(kit.transports["a"], "put", AgentUnreachable("a", "away"))
        scheduler = kit.scheduler()
        handles = [await scheduler.once_now(SendWelcome, Welcome("u")) for _ in range(10)]
        assert {handle.agent for handle in handles} == {"b"}


async def test_a_named_agent_that_refused_is_not_replaced() -> None:
    async with opened(("a", "b")) as kit:
        Fault(kit.transports["a"], "put", AgentUnreachable("a", "away"))
        with pytest.raises(AgentUnreachable, match="'a'"):
            await kit.scheduler().once_now(SendWelcome, Welcome("u"), agent="a")
        assert await count_on(kit, "b") == 0


async def test_a_put_of_unknown_fate_is_repeated_on_the_same_agent_only() -> None:
    async with opened(("a", "b")) as kit:
        await without_time(kit)
        before = probes()["indeterminate_resolved"]
        for agent in ("a", "b"):
            Fault(kit.transports[agent], "put", Indeterminate("cut off"), times=1, applied=True)
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"))
        assert handle.agent is not None
        assert await count_on(kit, handle.agent) == 1
        assert await count_on(kit, "a") + await count_on(kit, "b") == 1
        assert probes()["indeterminate_resolved"] == before + 1


async def test_a_put_whose_fate_stays_unknown_tells_id_and_agent() -> None:
    async with opened(("a", "b")) as kit:
        await without_time(kit)
        faults = {name: Fault(kit.transports[name], "put", Indeterminate("cut off")) for name in ("a", "b")}
        with pytest.raises(Indeterminate) as caught:
            await kit.scheduler().once_now(SendWelcome, Welcome("u"))
        agent = caught.value.agent
        assert agent is not None
        assert caught.value.job_id is not None
        assert faults[agent].calls == TRIES
        assert sum(fault.calls for fault in faults.values()) == TRIES


async def test_after_an_unknown_fate_a_refusal_does_not_free_the_job_for_another_agent() -> None:
    async with opened(("a", "b")) as kit:
        await without_time(kit)
        scheduler = kit.scheduler()
        for name in ("a", "b"):
            put = kit.transports[name].put

            async def first_unknown_then_refused(*arguments: Any, put: Any = put, calls: list[int] = []) -> Any:  # noqa: B006 - one list per agent
                calls.append(1)
                if len(calls) == 1:
                    await put(*arguments)
                    raise Indeterminate("cut off")
                raise AgentUnreachable("x", "away")

            kit.transports[name].put = first_unknown_then_refused
        with pytest.raises(Indeterminate):
            await scheduler.once_now(SendWelcome, Welcome("u"))
        assert await count_on(kit, "a") + await count_on(kit, "b") == 1


async def test_a_bulk_spreads_over_the_agents_each_job_on_one() -> None:
    async with opened(("a", "b", "c")) as kit:
        handles = await kit.scheduler().many(Enqueue(SendWelcome, Welcome(str(n))) for n in range(6_000))
        on = {handle.id: handle.agent for handle in handles}
        for name in ("a", "b", "c"):
            there = [item.id for item in await kit.transports[name].inventory("", 10_000)]
            assert {on[job_id] for job_id in there} == {name}
            assert len(there) >= 500


async def test_jobs_go_where_workers_serve_their_lane() -> None:
    workers = [WorkerSettings(agent="a"), WorkerSettings(agent="b", lanes={"mail": None})]
    async with opened(("a", "b"), workers) as kit:
        scheduler = kit.scheduler()
        mail = [await scheduler.once_now(SendWelcome, Welcome("u"), lane="mail") for _ in range(5)]
        rest = [await scheduler.once_now(SendWelcome, Welcome("u")) for _ in range(5)]
        assert ({handle.agent for handle in mail}, {handle.agent for handle in rest}) == ({"b"}, {"a"})


async def test_a_fuller_agent_gets_nothing_beside_an_empty_one() -> None:
    async with opened(("a", "b")) as kit:
        scheduler = kit.scheduler()
        await scheduler.many(Enqueue(SendWelcome, Welcome("u"), agent="a") for _ in range(100))
        kit.clock.advance(2)
        handles = [await scheduler.once_now(SendWelcome, Welcome("u")) for _ in range(20)]
        assert {handle.agent for handle in handles} == {"b"}


async def test_with_the_master_away_what_is_due_soon_goes_on_and_the_rest_fails_fast() -> None:
    async with opened() as kit:
        away = MasterUnavailable("connection refused")
        faults = [
            Fault(kit.master, verb, away) for verb in ("insert", "get", "definitions", "store_now_us", "save_schedule")
        ]
        scheduler = kit.scheduler()
        await scheduler.once_now(SendWelcome, Welcome("u"))
        await scheduler.once_after(SendWelcome, timedelta(minutes=1), Welcome("u"))
        await scheduler.once_now("elsewhere", {"x": 1})
        await scheduler.once_now("elsewhere", {"x": 1})
        assert faults[2].calls == 1
        with pytest.raises(MasterUnavailable):
            await scheduler.once_after(SendWelcome, timedelta(days=1), Welcome("u"))
        with pytest.raises(MasterUnavailable):
            await scheduler.once_now(SendWelcome, Welcome("u"), durability="master")
        with pytest.raises(MasterUnavailable):
            await scheduler.recurring(SendWelcome, timedelta(days=1), Welcome("u"), key="k")
        assert len(await kit.claim(lanes=("default",))) == 3


async def test_a_durable_job_is_safe_once_the_master_has_it() -> None:
    async with opened() as kit:
        Fault(kit.transports["a"], "put", AgentUnreachable("a", "away"))
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"), durability="master")
        (job,) = await kit.master.get([handle.id])
        assert (job.state, job.agent, job.epoch) == (JobState.DISPATCHING, "a", 1)
        assert kit.woken == 1
        kit.clock.advance(31)
        (placement,) = await kit.master.overdue("a", 10)
        assert placement.job.id == handle.id


async def test_an_insert_of_unknown_fate_is_repeated_and_still_handed_over() -> None:
    async with opened() as kit:
        await without_time(kit)
        Fault(kit.master, "insert", Indeterminate("cut off"), times=1, applied=True)
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"), durability="master")
        assert [job.id for job in await kit.claim()] == [handle.id]


async def test_a_durable_job_that_ran_is_not_run_again_by_the_same_id() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        own_id = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
        await scheduler.once_now(SendWelcome, Welcome("u"), id=own_id, durability="master")
        (job,) = await kit.claim()
        await kit.settle(job, result=b"1")
        await kit.sync()
        kit.clock.advance(7_200)
        await kit.transports["a"].prune(10)
        again = await scheduler.once_now(SendWelcome, Welcome("u"), id=own_id, durability="master")
        assert await kit.claim() == []
        assert await again.result(timeout=5) == 1
        await scheduler.close()


async def test_a_hand_off_that_its_agent_did_not_take_is_offered_to_the_duties_of_the_process() -> None:
    async with opened() as kit:
        Fault(kit.transports["a"], "put", AgentUnreachable("a", "away"))
        handle = await kit.scheduler().once_now(SendWelcome, Welcome("u"), durability="master")
        assert [placement.job.id for placement in kit.offered] == [handle.id]
