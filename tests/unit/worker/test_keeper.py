"""The lease keeper: when it extends, what it makes of answers, and how progress travels."""

import asyncio
from typing import Any

import pytest

from jobmaster.contracts.values import ExtendAnswer, Signal, SignalKind
from jobmaster.model.errors import Indeterminate
from jobmaster.telemetry.probes import probes
from jobmaster.worker.context import JobContext
from jobmaster.worker.worker import WorkerState
from tests.support import eventually
from tests.unit.worker.rig import Rig


class Reporting:
    """A handler whose progress the test reports."""

    def __init__(self) -> None:
        self.contexts: list[JobContext[Any]] = []
        self.open = asyncio.Event()

    async def __call__(self, job: JobContext[Any]) -> None:
        self.contexts.append(job)
        await self.open.wait()


async def advance(rig: Rig, seconds: float, step: float = 0.1) -> None:
    for _ in range(round(seconds / step)):
        rig.advance(step)
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_all_leases_are_extended_with_one_call_a_beat() -> None:
    handler = Reporting()
    async with Rig({"h": handler}, slots=20) as rig:
        await rig.put_many("h", 20)
        await rig.running(20)
        await advance(rig, 16)

        batches = rig.agent.calls["extend"]
        assert [len(batch) for batch in batches] == [20, 20, 20]
        assert all(item.started for item in batches[0])


@pytest.mark.asyncio
async def test_the_first_beat_puts_the_start_on_record() -> None:
    handler = Reporting()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        assert (await rig.job(job_id)).started_us is None
        await advance(rig, 6)

        assert (await rig.job(job_id)).started_us is not None


@pytest.mark.asyncio
async def test_progress_is_readable_at_once_and_then_once_a_second() -> None:
    handler = Reporting()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await eventually(lambda: len(handler.contexts) == 1)
        (job,) = handler.contexts
        job.progress(1, "first")
        await eventually(lambda: rig.progress(job_id), what="the first report arrives")
        before = len(rig.agent.calls["extend"])
        for percent in range(2, 42):
            job.progress(percent)
            await advance(rig, 0.1)
        await advance(rig, 1.2)

        assert (await rig.job(job_id)).progress == 41
        assert len(rig.agent.calls["extend"]) - before <= 6


@pytest.mark.asyncio
async def test_progress_of_many_jobs_shares_calls() -> None:
    handler = Reporting()
    async with Rig({"h": handler}, slots=50) as rig:
        await rig.put_many("h", 50)
        await eventually(lambda: len(handler.contexts) == 50)
        before = len(rig.agent.calls["extend"])
        for round_number in range(30):
            for job in handler.contexts:
                job.progress(round_number)
            await advance(rig, 0.1)

        assert len(rig.agent.calls["extend"]) - before <= 8


@pytest.mark.asyncio
async def test_reports_of_many_jobs_within_a_tenth_of_a_second_go_out_together() -> None:
    handler = Reporting()
    async with Rig({"h": handler}, slots=50) as rig:
        await rig.put_many("h", 50)
        await eventually(lambda: len(handler.contexts) == 50)
        before = len(rig.agent.calls["extend"])
        for job in handler.contexts:
            job.progress(1)
            await advance(rig, 0.004, step=0.002)

        assert len(rig.agent.calls["extend"]) - before <= 4


@pytest.mark.asyncio
async def test_leases_of_different_claims_come_to_share_one_beat() -> None:
    handler = Reporting()
    async with Rig({"h": handler}) as rig:
        await rig.put("h")
        await eventually(lambda: len(handler.contexts) == 1)
        await advance(rig, 2)
        await rig.put("h")
        await eventually(lambda: len(handler.contexts) == 2)
        await advance(rig, 4)

        assert [len(batch) for batch in rig.agent.calls["extend"]] == [2]


@pytest.mark.asyncio
async def test_a_busy_row_is_neither_kept_nor_lost() -> None:
    handler = Reporting()
    async with Rig({"h": handler}) as rig:
        await rig.put("h")
        await eventually(lambda: len(handler.contexts) == 1)
        extend = rig.agent.extend
        answered = 0

        async def locked(items: Any, ttl_us: int) -> Any:
            nonlocal answered
            answered += 1
            return [ExtendAnswer.BUSY] * len(items)

        rig.agent.extend = locked  # type: ignore[method-assign]
        await advance(rig, 8)
        assert not handler.contexts[0].cancelled
        rig.agent.extend = extend  # type: ignore[method-assign]
        await advance(rig, 8)

        assert answered > 1
        assert not handler.contexts[0].cancelled
        assert handler.contexts[0].lease_valid


@pytest.mark.asyncio
async def test_a_failed_extend_is_repeated_every_half_second() -> None:
    handler = Reporting()
    async with Rig({"h": handler}) as rig:
        await rig.put("h")
        await eventually(lambda: len(handler.contexts) == 1)
        rig.agent.before["extend"] = [Indeterminate("no answer")] * 3
        await advance(rig, 7)

        assert len(rig.agent.calls["extend"]) == 4
        assert handler.contexts[0].lease_valid


@pytest.mark.asyncio
async def test_a_lost_lease_is_counted() -> None:
    handler = Reporting()
    before = probes()["lease_lost"]
    async with Rig({"h": handler}) as rig:
        await rig.put("h")
        await eventually(lambda: len(handler.contexts) == 1)
        rig.worker.quiet()
        await rig.agent.reap(1, frozenset({rig.worker.id}))
        await advance(rig, 6)

        assert probes()["lease_lost"] == before + 1


@pytest.mark.asyncio
async def test_quiet_resume_and_stop_arrive_as_signals_even_when_nothing_runs() -> None:
    async with Rig({"h": Reporting()}) as rig:
        await rig.agent.signal([Signal(rig.worker.id, SignalKind.QUIET)])
        await advance(rig, 4.5)
        assert rig.worker.card().state == "quiet"
        await rig.agent.signal([Signal(rig.worker.id, SignalKind.RESUME)])
        await advance(rig, 4.5)
        assert rig.worker.card().state == "running"
        await rig.agent.signal([Signal(rig.worker.id, SignalKind.STOP)])
        await advance(rig, 4.5)

        await eventually(lambda: rig.worker.state is WorkerState.STOPPED)


@pytest.mark.asyncio
async def test_an_idle_keeper_hardly_asks_the_store_anything() -> None:
    async with Rig({"h": Reporting()}) as rig:
        asked = 0
        signals = rig.agent.signals

        async def counted(worker: str) -> list[Signal]:
            nonlocal asked
            asked += 1
            return await signals(worker)

        rig.agent.signals = counted  # type: ignore[method-assign]
        await advance(rig, 60)

        assert asked <= 28
        assert rig.agent.calls["extend"] == []
