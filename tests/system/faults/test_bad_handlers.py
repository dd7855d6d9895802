"""Handlers that do what no handler should, on a real cluster: the worker lives, and the record tells the truth."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from jobmaster import ClusterBuilder, Enqueue, FailReason, JobContext, JobFailed, JobHandler, JobState, Retry, Runtime
from jobmaster.telemetry.probes import probes
from jobmaster.worker.intake import SATURATION_SECONDS
from tests.sizes import SIZES
from tests.support import eventually, recorded

ONCE = Retry.never()


class Blocks(JobHandler):
    async def execute(self, job: JobContext) -> str:
        time.sleep(SIZES.blocked_loop_seconds)  # noqa: ASYNC251 - the handler's work: the worst it can do to a loop
        return "done"


class Swallows(JobHandler):
    retry = ONCE
    timeout = 0.3
    grace = 0.3
    ended = asyncio.Event()
    let_go = asyncio.Event()

    async def execute(self, job: JobContext) -> str:
        while not Swallows.let_go.is_set():
            try:
                await Swallows.let_go.wait()
            except asyncio.CancelledError:
                continue
        Swallows.ended.set()
        return "too late"


class Exits(JobHandler):
    retry = ONCE

    async def execute(self, job: JobContext) -> None:
        raise SystemExit(3)


class Interrupts(JobHandler):
    retry = ONCE

    async def execute(self, job: JobContext) -> None:
        raise KeyboardInterrupt


class ReturnsASet(JobHandler):
    async def execute(self, job: JobContext) -> Any:
        return {"fine": 1, "wrong": {1, 2}}


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class RaisesUnspeakable(JobHandler):
    retry = ONCE

    async def execute(self, job: JobContext) -> None:
        raise UnspeakableError


class Works(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return "worked"


HANDLERS = (Blocks, Swallows, Exits, Interrupts, ReturnsASet, RaisesUnspeakable, Works)


def config(file: Path) -> ClusterBuilder:
    builder = ClusterBuilder("bad").add_handlers(*HANDLERS).use_master(f"sqlite:///{file}")
    ttl = SIZES.blocked_loop_seconds / 2
    builder.lease(ttl=ttl, beat=ttl / 6, margin=ttl / 6)
    builder.add_worker("patient").slots(1)
    return builder


async def failure(runtime: Runtime, handler: type[JobHandler[Any]]) -> JobFailed:
    job = await runtime.scheduler.once_now(handler)
    with pytest.raises(JobFailed) as failed:
        await job.result(timeout=20)
    # The one slot is free again, and the worker lives.
    assert await (await runtime.scheduler.once_now(Works)).result(timeout=20) == "worked"
    return failed.value


@pytest.mark.asyncio
@pytest.mark.timeout(150)
async def test_a_handler_that_blocks_the_loop_keeps_its_lease_and_is_named(tmp_path: Path) -> None:
    warned: list[float] = []
    with capture_logs() as logs:
        async with config(tmp_path / "bad.db").build().run() as runtime:
            began = time.monotonic()
            job = await runtime.scheduler.once_now(Blocks)
            watcher = asyncio.get_running_loop().run_in_executor(None, note_warning, logs, began, warned)
            assert await job.result(timeout=SIZES.blocked_loop_seconds + 20) == "done"
            await watcher
            seen = await recorded(runtime.scheduler, job.id)
    assert [run.outcome for run in seen.runs] == ["succeeded"], "the lease lapsed under the blocked loop"
    assert warned
    assert warned[0] < 2.0


def note_warning(logs: list[Any], began: float, warned: list[float]) -> None:
    """On a thread, as the loop is blocked: when a warning named the handler."""
    while time.monotonic() - began < SIZES.blocked_loop_seconds:
        if any("blocks" in str(entry) and entry["log_level"] == "warning" for entry in list(logs)):
            warned.append(time.monotonic() - began)
            return
        time.sleep(0.02)  # the handler's work: polls with a deadline, on a thread


@pytest.mark.asyncio
async def test_a_handler_that_swallows_its_cancellation_gives_the_slot_back_and_commits_nothing(tmp_path: Path) -> None:
    Swallows.ended, Swallows.let_go = asyncio.Event(), asyncio.Event()
    async with config(tmp_path / "bad.db").build().run() as runtime:
        began = time.monotonic()
        failed = await failure(runtime, Swallows)
        assert failed.reason == FailReason.TIMED_OUT
        assert time.monotonic() - began < 5
        Swallows.let_go.set()
        await asyncio.wait_for(Swallows.ended.wait(), 30)
        seen = await runtime.scheduler.get(failed.job_id)
        assert seen.state is JobState.FAILED
        assert seen.result is None


@pytest.mark.asyncio
@pytest.mark.parametrize(("handler", "kind"), [(Exits, "SystemExit"), (Interrupts, "KeyboardInterrupt")])
async def test_a_handler_that_ends_the_process_by_exception_is_a_failed_attempt(
    handler: type[JobHandler[Any]], kind: str, tmp_path: Path
) -> None:
    async with config(tmp_path / "bad.db").build().run() as runtime:
        failed = await failure(runtime, handler)
        assert (failed.reason, failed.error_type) == (FailReason.EXHAUSTED, kind)


@pytest.mark.asyncio
async def test_a_result_that_is_no_json_fails_without_retry_and_names_type_and_path(tmp_path: Path) -> None:
    async with config(tmp_path / "bad.db").build().run() as runtime:
        failed = await failure(runtime, ReturnsASet)
        assert failed.reason == FailReason.REJECTED
        assert "set" in str(failed)
        assert "$.wrong" in str(failed)
        assert (await runtime.scheduler.get(failed.job_id)).attempts == 1


@pytest.mark.asyncio
async def test_an_error_whose_text_can_not_be_had_is_recorded_by_type(tmp_path: Path) -> None:
    async with config(tmp_path / "bad.db").build().run() as runtime:
        failed = await failure(runtime, RaisesUnspeakable)
        assert failed.error_type is not None
        assert failed.error_type.endswith("UnspeakableError")


class Slow(JobHandler):
    gate = asyncio.Event()

    async def execute(self, job: JobContext) -> None:
        await Slow.gate.wait()


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_a_worker_claims_no_more_than_its_slots_and_prefetch(tmp_path: Path) -> None:
    """10 slots, prefetch 20, blocked handlers, a long backlog: the agent never shows more than 30 jobs leased."""
    Slow.gate = asyncio.Event()
    saturated: list[float | None] = []
    stale = probes()["stale_settle"]
    builder = ClusterBuilder("pressure").add_handlers(Slow).use_master(f"sqlite:///{tmp_path / 'pressure.db'}")
    builder.on_saturated(lambda event: saturated.append(event.duration_seconds))
    builder.add_worker("narrow").slots(10).prefetch(20)
    async with builder.build().run() as runtime:
        jobs = await runtime.scheduler.many(Enqueue(Slow) for _ in range(SIZES.waiting_jobs))
        agent = runtime.agents["standalone"]
        await eventually(lambda: most_leased(runtime, at_least=10))
        # The handlers block for so long that it counts as a saturation, however quickly the store answers.
        full_since = time.monotonic()
        samples: list[int] = []
        while len(samples) < 100 or time.monotonic() - full_since <= SATURATION_SECONDS:
            samples.append(sum(lane.leased for lane in await agent.stats()))
        assert max(samples) <= 30, samples
        assert saturated == []
        Slow.gate.set()
        await jobs[len(jobs) - 1].result(timeout=60)
        await eventually(lambda: saturated, within=30)
        assert len(saturated) == 1
        assert saturated[0] is not None
        assert saturated[0] >= SATURATION_SECONDS
    assert probes()["stale_settle"] == stale


async def most_leased(runtime: Runtime, at_least: int) -> bool:
    return sum(lane.leased for lane in await runtime.agents["standalone"].stats()) >= at_least
