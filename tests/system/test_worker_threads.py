"""The worker in real time: leases kept from a thread of their own, blocked loops, and handlers in threads."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from jobmaster import JobContext, job
from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.values import Revoke, RevokeKind, Signal, SignalKind
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.retry import Retry
from jobmaster.model.states import FailReason, JobState
from jobmaster.registry import build_registry
from jobmaster.settings import Defaults, Timings
from tests.support import eventually
from tests.unit.worker.rig import Function, Rig

SCALED = Timings(lease_ttl=0.8, lease_beat=0.2, lease_margin=0.2, poll=0.2)
MILLISECOND = 1_000
ROOT = Path(__file__).parents[2]
NO_RETRY = Retry.never()


def a_rig(handlers: dict[str, Function], **options: Any) -> Rig:
    """A worker in real time, with everything about leases twenty times as fast."""
    rig = Rig(handlers, clock=SystemClock(), timings=SCALED, start=False, **options)
    rig.worker._keeper._tick_seconds = 0.03
    rig.worker._keeper._stall._warn_after = 0.1
    return rig


@pytest.mark.asyncio
async def test_a_handler_that_blocks_the_loop_keeps_its_lease_and_is_named() -> None:
    reports = []

    async def blocking(job: JobContext[Any]) -> str:
        time.sleep(1.2)  # noqa: ASYNC251 - the handler's work
        reports.append(await rig.agent.reap(10))
        return "done"

    async with a_rig({"blocking": blocking}) as rig:
        with structlog.testing.capture_logs() as logged:
            job_id = await rig.put("blocking")
            await rig.worker.start()
            ended = await rig.ended(job_id)

        assert (ended.state, ended.suspect, ended.claim_seq) == (JobState.SUCCEEDED, False, 1)
        assert reports[0].requeued == 0
        (line,) = [line for line in logged if line["event"] == "worker.loop_blocked"]
        assert (line["handler"], line["job_id"]) == ("blocking", job_id)
        assert "test_worker_threads.py" in line["at"]
        assert line["blocked_seconds"] < 0.5
        await eventually(lambda: (rig.worker.card().loop_lag_us or 0) >= 1_000_000, 5, "the heartbeat tells of it")
        assert rig.worker.card().rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


@pytest.mark.asyncio
async def test_a_blocked_loop_past_timeout_and_grace_ends_the_process_and_lets_the_leases_go() -> None:
    called = threading.Event()

    async def blocking(job: JobContext[Any]) -> None:
        assert called.wait(10)

    async with a_rig({"blocking": blocking}, on_unresponsive=called.set) as rig:
        policy = Policy(timeout_us=150 * MILLISECOND, grace_us=100 * MILLISECOND, retry=NO_RETRY)
        await rig.put("blocking", policy=policy)
        await rig.worker.start()
        await asyncio.to_thread(called.wait, 10)

        assert rig.worker._keeper._let_go


PROGRAM = """
import asyncio, random, time
from jobmaster.contracts.clock import SystemClock
from jobmaster.model.policy import Policy
from jobmaster.model.retry import Retry
from tests.system.test_worker_threads import a_rig

async def blocking(job):
    time.sleep(30)  # the handler's work

async def main():
    async with a_rig({"blocking": blocking}) as rig:
        await rig.put("blocking", policy=Policy(timeout_us=100_000, grace_us=100_000, retry=Retry.never()))
        await rig.worker.start()
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_process_exits_with_75() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, timeout=30, capture_output=True, check=False, text=True
    )

    assert done.returncode == 75, done.stderr
    assert "blocking" in done.stdout + done.stderr


@pytest.mark.asyncio
async def test_the_keepers_thread_lives_as_long_as_its_worker() -> None:
    def keepers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if "jobmaster-keeper" in thread.name]

    async with a_rig({}) as rig:
        await rig.worker.start()
        assert len(keepers()) == 1

    assert keepers() == []


@pytest.mark.alone
@pytest.mark.asyncio
async def test_a_cancel_reaches_a_running_handler_within_a_second() -> None:
    cancelled = asyncio.Event()

    async def endless(job: JobContext[Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    rig = Rig({"endless": endless}, clock=SystemClock())
    async with rig:
        job_id = await rig.put("endless")
        await rig.running(1)
        began = time.monotonic()
        await rig.agent.revoke([Revoke(job_id, 1, RevokeKind.CANCEL)])
        await rig.agent.signal([Signal(rig.worker.id, SignalKind.CANCEL, job_id)])
        await asyncio.wait_for(cancelled.wait(), 5)

        assert time.monotonic() - began < 1.0


let_go = threading.Event()
seen: list[bool] = []


@job(name="patient", timeout=0.2, grace=0.2, retry=NO_RETRY)
def patient(job: JobContext) -> str:
    while not job.cancelled:
        time.sleep(0.005)  # the handler's work
    seen.append(job.lease_valid)
    return "asked to end"


@job(name="deaf", timeout=0.1, grace=0.1, retry=NO_RETRY)
def deaf(job: JobContext) -> str:
    let_go.wait(20)
    return "late"


@job(name="plain")
def plain(job: JobContext) -> str:
    job.progress(50, "half")
    job.log.info("from a thread")
    return threading.current_thread().name


@job(name="leaver", retry=NO_RETRY)
def leaver(job: JobContext) -> None:
    raise SystemExit(3)


def thread_rig(*handlers: Any, slots: int = 4) -> Rig:
    registry, faults = build_registry(handlers, Defaults())
    assert faults == []
    return a_rig({}, slots=slots, registry=registry)


async def put(rig: Rig, handler: str) -> str:
    found = rig.registry.get(handler)
    assert found is not None
    return await rig.put(handler, {}, policy=found.policy)


@pytest.mark.asyncio
async def test_a_plain_function_runs_in_a_thread_with_progress_and_log() -> None:
    async with thread_rig(plain) as rig:
        await rig.worker.start()
        job_id = await put(rig, "plain")
        ended = await rig.ended(job_id)
        _, detail = await rig.run_recorded(job_id)

        assert ended.result is not None
        assert threading.current_thread().name not in ended.result.decode()
        assert (ended.progress, ended.progress_note, detail.log) == (50, "half", ("info: from a thread",))


@pytest.mark.asyncio
async def test_a_handler_in_a_thread_that_asks_is_told_of_its_timeout() -> None:
    seen.clear()
    async with thread_rig(patient) as rig:
        await rig.worker.start()
        ended = await rig.ended(await put(rig, "patient"))

        assert ended.reason is FailReason.TIMED_OUT
        await eventually(lambda: seen == [True])
        assert rig.worker.abandoned == 0


@pytest.mark.asyncio
async def test_a_thread_that_does_not_end_loses_its_slot_and_its_result() -> None:
    let_go.clear()
    async with thread_rig(deaf, plain, slots=1) as rig:
        with structlog.testing.capture_logs() as logged:
            await rig.worker.start()
            job_id = await put(rig, "deaf")
            ended = await rig.ended(job_id)
            after = await rig.ended(await put(rig, "plain"))

        assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.TIMED_OUT)
        assert after.state is JobState.SUCCEEDED
        (line,) = [line for line in logged if line["event"] == "worker.handler_abandoned"]
        assert (line["handler"], line["in_thread"]) == ("deaf", True)
        let_go.set()
        assert [run.outcome for run in await rig.runs(job_id)] == [RunOutcome.FAILED]


@pytest.mark.asyncio
async def test_system_exit_in_a_thread_fails_the_attempt_and_the_worker_lives() -> None:
    async with thread_rig(leaver, plain) as rig:
        await rig.worker.start()
        ended = await rig.ended(await put(rig, "leaver"))
        after = await rig.ended(await put(rig, "plain"))

        assert (ended.reason, ended.error) == (FailReason.EXHAUSTED, "SystemExit: 3")
        assert after.state is JobState.SUCCEEDED
