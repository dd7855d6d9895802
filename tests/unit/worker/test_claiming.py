"""The intake: demand, back-pressure, what is given back, suspects and lanes."""

import asyncio
from typing import Any

import pytest

from jobmaster.contracts.values import SettleAnswer
from jobmaster.listeners import EventKind
from jobmaster.model.errors import Refused
from jobmaster.model.policy import Policy
from jobmaster.model.states import FailReason, JobState
from jobmaster.telemetry.probes import probes
from jobmaster.worker.context import JobContext
from tests.support import eventually
from tests.unit.worker.rig import Rig


class Gate:
    """A handler that waits until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = 0
        self.most = 0
        self.order: list[Any] = []

    async def __call__(self, job: JobContext[Any]) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(job.data)
        try:
            await self.open.wait()
        finally:
            self.running -= 1


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_blocked_handlers_never_lease_more_than_slots_and_prefetch() -> None:
    gate = Gate()

    async def short(job: JobContext[Any]) -> None:
        if job.data >= 2_000:
            await gate(job)

    async with Rig({"h": short}, slots=10, prefetch=20, start=False) as rig:
        await rig.put_many("h", 3_000)
        await rig.worker.start()
        await eventually(lambda: gate.running == 10)
        await eventually(lambda: rig.worker._settler._open == 0)
        for _ in range(100):
            rig.advance(0.1)
            rig.worker.wake()
            await turns(5)
            assert await rig.leased() <= 30
        assert gate.most == 10
        gate.open.set()


@pytest.mark.asyncio
async def test_an_unstarted_claim_goes_back_after_a_second() -> None:
    gate = Gate()
    async with Rig({"h": gate}, slots=1, prefetch=5) as rig:
        first = await rig.put("h", 1)
        await eventually(lambda: gate.running == 1)
        pool = rig.worker._pools[0]
        second = await rig.put("h", 2)
        pool.prefetch = 5
        rig.worker.wake()
        await eventually(lambda: len(pool.waiting) == 1)
        assert (await rig.job(second)).state is JobState.RUNNING
        rig.advance(0.9)
        await turns()
        assert len(pool.waiting) == 1
        rig.advance(0.2)
        await eventually(lambda: len(rig.agent.calls["release"]) == 1)

        job = await rig.job(second)
        assert (job.state, job.interrupts, job.suspect) == (JobState.QUEUED, 0, False)
        assert await rig.runs(second) == []
        assert (await rig.job(first)).state is JobState.RUNNING
        gate.open.set()


@pytest.mark.asyncio
async def test_claiming_goes_on_as_soon_as_what_goes_back_was_answered() -> None:
    gate, arrived = Gate(), asyncio.Event()
    async with Rig({"h": gate}, slots=1, prefetch=5) as rig:

        async def slowly(items: Any) -> Any:
            await arrived.wait()
            # Stale, so that nothing becomes ready by it and no hint of the store helps.
            return [SettleAnswer.STALE] * len(items)

        rig.agent.release = slowly  # type: ignore[method-assign]
        await rig.put("h", 1)
        await eventually(lambda: gate.running == 1)
        pool = rig.worker._pools[0]
        await rig.put_many("h", 3)
        pool.prefetch = 5
        rig.worker.wake()
        await eventually(lambda: len(pool.waiting) == 3)
        rig.advance(1.1)
        await eventually(lambda: rig.worker._settler.returning == 3)
        await rig.put("h", "next")
        gate.open.set()
        await eventually(lambda: rig.worker.busy == 0)
        await turns(50)
        assert gate.order == [1]
        arrived.set()

        await eventually(lambda: gate.order == [1, "next"])


@pytest.mark.asyncio
async def test_a_new_job_is_claimed_at_once() -> None:
    async def nothing(job: JobContext[Any]) -> None:
        return None

    async with Rig({"h": nothing}) as rig:
        await turns()

        await rig.ended(await rig.put("h"))


@pytest.mark.asyncio
async def test_polling_finds_what_no_hint_told_of() -> None:
    gate = Gate()
    async with Rig({"h": gate}) as rig:
        await turns()
        claims = len(rig.agent.calls["claim"])
        for _ in range(25):
            rig.advance(0.05)
            await turns()

        assert len(rig.agent.calls["claim"]) == claims + 1


@pytest.mark.asyncio
async def test_an_idle_worker_claims_once_a_poll_and_no_more() -> None:
    async with Rig({"h": Gate()}) as rig:
        for _ in range(600):
            rig.advance(0.1)
            await turns(8)

        assert 48 <= len(rig.agent.calls["claim"]) <= 82


@pytest.mark.asyncio
async def test_a_refused_claim_is_tried_again() -> None:
    async def nothing(job: JobContext[Any]) -> None:
        return None

    async with Rig({"h": nothing}, start=False) as rig:
        rig.agent.before["claim"] = [Refused("away")] * 3
        job_id = await rig.put("h")
        await rig.worker.start()

        async def ended() -> bool:
            rig.advance(0.2)
            return (await rig.job(job_id)).terminal

        await eventually(ended)


@pytest.mark.asyncio
async def test_a_job_that_comes_while_the_store_is_looking_is_not_missed() -> None:
    gate = Gate()
    async with Rig({"h": gate}, start=False) as rig:
        claim, never = rig.agent.claim, asyncio.Event()

        async def looking(*arguments: Any, **more: Any) -> Any:
            jobs = await claim(*arguments, **more)
            if not gate.order and not jobs:
                await rig.put("h", "behind its back")
                rig.worker._intake.look()
            return jobs

        async def deaf(lanes: frozenset[str], seconds: float) -> None:
            await never.wait()

        rig.agent.claim = looking  # type: ignore[method-assign]
        rig.agent.wait = deaf  # type: ignore[method-assign]
        await rig.worker.start()

        await eventually(lambda: gate.order == ["behind its back"])


@pytest.mark.asyncio
async def test_claims_come_in_batches() -> None:
    gate = Gate()
    gate.open.set()
    async with Rig({"h": gate}, slots=10, start=False) as rig:
        claim = rig.agent.claim

        async def slowly(*arguments: Any, **more: Any) -> Any:
            await turns(10)
            return await claim(*arguments, **more)

        rig.agent.claim = slowly  # type: ignore[method-assign]
        await rig.put_many("h", 3_000)
        rig.worker._pools[0].prefetch = 400
        rig.worker._pools[0].measure = lambda now: None  # type: ignore[method-assign]
        await rig.worker.start()
        await eventually(lambda: len(rig.settled) == 3_000)

        assert len(rig.agent.calls["claim"]) <= 3_000 / 200 + 3


@pytest.mark.asyncio
async def test_a_quiet_worker_claims_nothing_until_it_resumes() -> None:
    async def nothing(job: JobContext[Any]) -> None:
        return None

    async with Rig({"h": nothing}) as rig:
        rig.worker.quiet()
        assert rig.worker.card().state == "quiet"
        job_id = await rig.put("h")
        for _ in range(30):
            rig.advance(0.1)
            await turns()
        assert (await rig.job(job_id)).state is JobState.QUEUED
        rig.worker.resume()

        await rig.ended(job_id)
        assert rig.worker.card().state == "running"


@pytest.mark.asyncio
async def test_lanes_with_slots_of_their_own_do_not_take_the_shared_ones() -> None:
    gate = Gate()
    lanes = {"default": None, "other": None, "narrow": 2}
    async with Rig({"h": gate}, slots=3, lanes=lanes) as rig:
        await rig.put_many("h", 10, lane="narrow")
        await eventually(lambda: gate.running == 2)
        await turns(50)
        assert gate.running == 2
        await rig.put_many("h", 10, lane="other")
        await eventually(lambda: gate.running == 5)
        await turns(50)

        assert (gate.running, rig.worker.busy, rig.worker.card().slots) == (5, 5, 5)
        gate.open.set()


@pytest.mark.asyncio
async def test_higher_priority_starts_first() -> None:
    gate = Gate()
    gate.open.set()
    async with Rig({"h": gate}, slots=1, start=False) as rig:
        await rig.put("h", "medium", priority=2)
        await rig.put("h", "critical", priority=0)
        await rig.worker.start()
        await eventually(lambda: len(gate.order) == 2)

        assert gate.order == ["critical", "medium"]


async def make_suspects(rig: Rig, count: int, lane: str = "default") -> list[str]:
    """Jobs whose lease lapsed once under another worker."""
    ids = await rig.put_many("h", count, lane=lane)
    claimed = await rig.agent.claim("dead", {lane: count}, frozenset({"h"}), count, 1_000_000)
    assert len(claimed) == count
    await rig.agent.reap(count, frozenset({"dead"}))
    return ids


@pytest.mark.asyncio
async def test_suspects_run_one_at_a_time_after_a_recorded_start_and_others_pass_them() -> None:
    gate = Gate()
    before = probes()["suspect_run"]
    async with Rig({"h": gate}, slots=10, start=False) as rig:
        suspects = await make_suspects(rig, 3)
        await rig.worker.start()
        await eventually(lambda: gate.running == 1)
        plain = await rig.put_many("h", 4)
        await eventually(lambda: gate.running == 5)
        running = [job_id for job_id in suspects if (await rig.job(job_id)).started_us is not None]

        assert len(running) == 1
        assert probes()["suspect_run"] == before + 1
        gate.open.set()
        for job_id in suspects + plain:
            assert (await rig.ended(job_id)).state is JobState.SUCCEEDED
        assert not (await rig.job(suspects[0])).suspect


@pytest.mark.asyncio
async def test_suspects_of_two_workers_of_a_process_take_turns() -> None:
    gate = Gate()
    async with (
        Rig({"h": gate}, lanes={"a": None}, start=False) as rig,
        Rig({"h": gate}, lanes={"b": None}, slots=1, clock=rig.clock, agent=rig.agent, start=False) as other,
    ):
        suspects = await make_suspects(rig, 1, lane="a") + await make_suspects(rig, 2, lane="b")
        await rig.worker.start()
        await other.worker.start()
        await eventually(lambda: gate.running == 1 and rig.worker.held + other.worker.held == 3)
        for _ in range(20):
            rig.advance(0.1)
            await turns()
        assert gate.most == 1
        gate.open.set()
        await eventually(lambda: len(rig.settled) + len(other.settled) >= 1)
        for _ in range(14):
            rig.advance(0.1)
            await turns()

        for job_id in suspects:
            await rig.ended(job_id)
        assert gate.most == 1
        assert (len(rig.settled), len(other.settled)) == (1, 2)


@pytest.mark.asyncio
async def test_suspects_that_wait_too_long_go_back_for_others() -> None:
    gate = Gate()
    async with Rig({"h": gate}, start=False) as rig:
        await make_suspects(rig, 3)
        await rig.worker.start()
        await eventually(lambda: gate.running == 1)
        rig.worker.quiet()
        for _ in range(45):
            rig.advance(0.1)
            await turns(5)
        assert await rig.leased() == 3
        for _ in range(10):
            rig.advance(0.1)
            await turns(5)

        await eventually(lambda: rig.all_leased(1))
        gate.open.set()


@pytest.mark.asyncio
async def test_an_at_most_once_job_starts_only_once_its_start_is_on_record() -> None:
    gate = Gate()
    async with Rig({"h": gate}) as rig:
        rig.agent.before["extend"] = [Refused("away")] * 2
        job_id = await rig.put("h", policy=Policy(at_most_once=True))
        await eventually(lambda: len(rig.agent.calls["extend"]) == 1)
        assert gate.running == 0

        async def begun() -> bool:
            rig.advance(0.1)
            return gate.running == 1

        await eventually(begun)
        assert (await rig.job(job_id)).started_us is not None
        gate.open.set()
        assert (await rig.ended(job_id)).state is JobState.SUCCEEDED


@pytest.mark.asyncio
async def test_a_job_whose_lease_was_lost_before_its_start_is_not_run() -> None:
    gate = Gate()
    async with Rig({"h": gate}) as rig:
        rig.agent.before["extend"] = [Refused("away")]
        job_id = await rig.put("h", policy=Policy(at_most_once=True))
        await eventually(lambda: len(rig.agent.calls["extend"]) == 1)
        rig.worker.quiet()
        await rig.agent.reap(1, frozenset({rig.worker.id}))

        async def dropped() -> bool:
            rig.advance(0.1)
            return rig.worker.busy == 0

        await eventually(dropped)
        assert gate.order == []
        assert (await rig.job(job_id)).state is JobState.QUEUED


@pytest.mark.asyncio
async def test_at_most_once_ends_as_crashed_when_the_worker_stops_under_it() -> None:
    async with Rig({"h": Gate()}) as rig:
        job_id = await rig.put("h", policy=Policy(at_most_once=True))
        await rig.running(1)
        await eventually(lambda: rig.started(job_id))
        await rig.worker.stop(0)

        assert (await rig.job(job_id)).reason is FailReason.CRASHED


@pytest.mark.asyncio
async def test_a_saturation_is_told_once_when_it_is_over() -> None:
    gate = Gate()
    async with Rig({"h": gate}, slots=2) as rig:
        await rig.put_many("h", 6)
        await eventually(lambda: gate.running == 2)
        for _ in range(30):
            rig.advance(0.1)
            await turns()
        assert rig.listeners.of(EventKind.SATURATED) == []
        gate.open.set()
        await eventually(lambda: len(rig.settled) == 6)
        for _ in range(15):
            rig.advance(0.1)
            await turns()

        (event,) = rig.listeners.of(EventKind.SATURATED)
        assert event.duration_seconds == pytest.approx(3.0, abs=1.0)
        assert event.worker == rig.worker.id
