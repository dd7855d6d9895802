"""Outcomes on their way to the store: batches, refusals, doubt, and what is stale."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import structlog

from jobmaster.contracts.values import Revoke, RevokeKind, Settlement
from jobmaster.listeners import EventKind
from jobmaster.model.errors import Indeterminate, Refused
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from jobmaster.telemetry.probes import probes
from jobmaster.worker.context import JobContext
from jobmaster.worker.settlement import BATCH
from tests.support import eventually
from tests.unit.worker.rig import Rig


async def at_once(job: JobContext[Any]) -> int:
    return int(job.data)


async def pass_time(rig: Rig, seconds: float) -> None:
    for _ in range(round(seconds / 0.1)):
        rig.advance(0.1)
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_many_outcomes_go_out_together() -> None:
    async with Rig({"h": at_once}, slots=100, start=False) as rig:
        await rig.put_many("h", 300)
        await rig.worker.start()
        await eventually(lambda: len(rig.settled) == 300)

        batches = rig.agent.calls["settle"]
        assert len(batches) <= 10
        assert max(map(len, batches)) <= BATCH


@pytest.mark.asyncio
async def test_a_full_batch_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmaster.worker.settlement.BATCH", 5)
    monkeypatch.setattr("jobmaster.worker.settlement.DELAY_SECONDS", 3_600)

    async def endless(job: JobContext[Any]) -> None:
        await asyncio.Event().wait()

    async with Rig({"h": at_once, "endless": endless}) as rig:
        await rig.put("endless")
        await rig.running(1)
        await rig.put_many("h", 5)
        await eventually(lambda: len(rig.settled) == 5)

        assert [len(batch) for batch in rig.agent.calls["settle"]] == [5]


@pytest.mark.asyncio
@pytest.mark.parametrize("beside", [3_600, 0.01])
async def test_behind_a_batch_under_way_the_next_one_gathers(monkeypatch: pytest.MonkeyPatch, beside: float) -> None:
    monkeypatch.setattr("jobmaster.worker.settlement.BATCH", 3)
    monkeypatch.setattr("jobmaster.worker.settlement.BESIDE_SECONDS", beside)
    ended, stop = asyncio.Semaphore(0), asyncio.Event()

    async def when_told(job: JobContext[Any]) -> None:
        await ended.acquire()

    async def endless(job: JobContext[Any]) -> None:
        await stop.wait()

    async def settle(items: Sequence[Settlement]) -> Any:
        under_way.append(len(items))
        await landing.wait()
        return await taken(items)

    async with Rig({"h": when_told, "endless": endless}, slots=10) as rig:
        under_way: list[int] = []
        landing = asyncio.Event()
        taken = rig.agent.settle
        monkeypatch.setattr(rig.agent, "settle", settle)
        try:
            await rig.put("endless")
            await rig.put_many("h", 5)
            await rig.running(6)
            ended.release()
            await eventually(lambda: under_way == [1])
            ended.release()
            ended.release()
            await eventually(lambda: rig.worker.busy == 3)
            if beside < 1:
                await eventually(lambda: under_way == [1, 2], what="it does not wait for ever for one that hangs")
            else:
                assert under_way == [1], "one that is not full waits for the one under way"
                ended.release()
                await eventually(lambda: under_way == [1, 3], what="a full one does not")
        finally:
            landing.set()
            stop.set()
            for _ in range(5):
                ended.release()
        await eventually(lambda: len(rig.settled) == 6)


@pytest.mark.asyncio
async def test_a_lone_outcome_does_not_wait_for_others() -> None:
    async with Rig({"h": at_once}) as rig:
        await rig.ended(await rig.put("h", 1))

        assert rig.worker._settler._timer is None
        assert rig.worker.held == 0


@pytest.mark.asyncio
async def test_a_slot_is_free_before_its_outcome_is_answered_but_the_lease_is_kept() -> None:
    async with Rig({"h": at_once}, slots=1) as rig:
        rig.agent.before["settle"] = [Refused("away")] * 3
        await rig.put_many("h", 3)
        await eventually(lambda: len(rig.agent.calls["settle"]) >= 1 and rig.worker.busy == 0)

        assert rig.worker.held >= 1
        assert rig.settled == []
        await pass_until(rig, 3)
        assert rig.worker.held == 0


@pytest.mark.asyncio
async def test_a_refused_batch_is_offered_again_until_it_is_taken() -> None:
    async with Rig({"h": at_once}) as rig:
        rig.agent.before["settle"] = [Refused("away")] * 4
        job_id = await rig.put("h", 5)
        await eventually(lambda: len(rig.agent.calls["settle"]) == 1)
        await pass_until(rig, 1)

        assert (await rig.ended(job_id)).state is JobState.SUCCEEDED
        assert [batch[0].token for batch in rig.agent.calls["settle"]] == 5 * [1 << 32 | 1]


@pytest.mark.asyncio
async def test_a_doubtful_batch_is_repeated_as_it_was_and_counted_once() -> None:
    before = probes()["indeterminate_resolved"]
    async with Rig({"h": at_once}) as rig:
        rig.agent.after["settle"] = [Indeterminate("no answer")]
        job_id = await rig.put("h", 5)
        await eventually(lambda: len(rig.agent.calls["settle"]) == 1)
        assert rig.listeners.of(EventKind.SUCCEEDED) == []
        await pass_time(rig, 1)
        await eventually(lambda: len(rig.settled) == 1)

        first, second = rig.agent.calls["settle"]
        assert first == second
        assert len(await rig.runs(job_id)) == 1
        assert len(rig.listeners.of(EventKind.SUCCEEDED)) == 1
        assert probes()["indeterminate_resolved"] == before + 1


@pytest.mark.asyncio
async def test_a_stale_outcome_is_logged_counted_and_told_as_a_late_result_only() -> None:
    release = asyncio.Event()

    async def waiting(job: JobContext[Any]) -> str:
        await release.wait()
        return "too late"

    before = probes()["late_result"]
    async with Rig({"h": waiting}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        await rig.agent.revoke([Revoke(job_id, 1, RevokeKind.CANCEL)])
        with structlog.testing.capture_logs() as logged:
            release.set()
            await eventually(lambda: rig.worker.held == 0)

        assert [line["answer"] for line in logged if line["event"] == "worker.outcome_refused"] == ["stale"]
        assert rig.listeners.of(EventKind.SUCCEEDED) == []
        (late,) = rig.listeners.of(EventKind.LATE_RESULT)
        assert (late.job_id, late.reason, late.result) == (job_id, "succeeded", b'"too late"')
        assert rig.settled == []
        assert probes()["late_result"] == before + 1


@pytest.mark.asyncio
async def test_one_outcome_the_transport_can_not_take_does_not_hold_up_the_others() -> None:
    async with Rig({"h": at_once}, start=False) as rig:
        poisoned = await rig.put("h", 0)
        good = await rig.put_many("h", 7)
        settle = rig.agent.settle

        async def choking(items: Any) -> Any:
            if any(item.id == poisoned for item in items):
                raise TypeError("what is this?")
            return await settle(items)

        rig.agent.settle = choking  # type: ignore[method-assign]
        with structlog.testing.capture_logs() as logged:
            await rig.worker.start()
            for job_id in good:
                await rig.ended(job_id)
            await eventually(lambda: rig.worker.held == 0)

        assert [line["job_id"] for line in logged if line["event"] == "worker.outcome_lost"] == [poisoned]
        assert {settlement.id for settlement in rig.settled} == set(good)


@pytest.mark.asyncio
async def test_nothing_is_claimed_while_too_many_outcomes_are_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmaster.worker.settlement.CONGESTED", 20)
    async with Rig({"h": at_once}, slots=10, start=False) as rig:
        rig.agent.before["settle"] = [Refused("away")] * 6
        await rig.put_many("h", 200)
        await rig.worker.start()
        await eventually(lambda: rig.worker._settler.congested)
        await pass_time(rig, 0.5)

        assert await rig.leased() <= 40
        await pass_until(rig, 200)
        assert rig.worker.held == 0


async def pass_until(rig: Rig, settled: int) -> None:
    async def step() -> bool:
        await pass_time(rig, 0.5)
        return len(rig.settled) == settled

    await eventually(step, what=f"{settled} outcomes are settled")


@pytest.mark.asyncio
async def test_an_interrupted_release_that_is_in_doubt_is_repeated() -> None:
    async def endless(job: JobContext[Any]) -> None:
        await asyncio.Event().wait()

    async with Rig({"h": endless}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        rig.agent.after["release"] = [Indeterminate("no answer")]
        stopping = asyncio.ensure_future(rig.worker.stop(0))
        await eventually(lambda: len(rig.agent.calls["release"]) == 1)
        await pass_time(rig, 1)
        await stopping

        assert [run.outcome for run in await rig.runs(job_id)] == [RunOutcome.INTERRUPTED]
        assert (await rig.job(job_id)).interrupts == 1
