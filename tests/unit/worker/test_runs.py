"""One run through the whole worker: every way a handler can end, and what the store then holds."""

import asyncio
import contextvars
from typing import Any

import pytest
import structlog

from jobmaster.listeners import EventKind
from jobmaster.model.errors import Reject, RetryAfter, Snooze
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.policy import Policy
from jobmaster.model.retry import Retry
from jobmaster.model.states import FailReason, JobState
from jobmaster.settings import Limits
from jobmaster.worker.context import JobContext
from tests.support import eventually
from tests.unit.worker.rig import Rig

ONE_ATTEMPT = Policy(retry=Retry.never())


def raising(error: BaseException) -> Any:
    async def handler(job: JobContext[Any]) -> None:
        raise error

    return handler


@pytest.mark.asyncio
async def test_a_job_succeeds_with_its_result_log_and_progress() -> None:
    async def handler(job: JobContext[Any]) -> dict[str, int]:
        job.log.info("working", on=job.data)
        job.progress(60, "most")
        return {"double": 2 * job.data}

    async with Rig({"double": handler}) as rig:
        with structlog.testing.capture_logs():
            job = await rig.ended(await rig.put("double", 21))

        assert (job.state, job.result) == (JobState.SUCCEEDED, b'{"double":42}')
        run, detail = await rig.run_recorded(job.id)
        assert (run.outcome, run.attempt, run.worker) == (RunOutcome.SUCCEEDED, 1, rig.worker.id)
        assert run.host == rig.worker.host
        assert detail.log == ("info: working on=21",)
        assert (detail.progress, job.progress, job.progress_note) == (60, 60, "most")


@pytest.mark.asyncio
async def test_a_failed_attempt_is_tried_again_later() -> None:
    attempts = []

    async def handler(job: JobContext[Any]) -> str:
        attempts.append(job.attempt)
        if job.attempt < 3:
            raise ValueError("not yet")
        return "done"

    async with Rig({"stubborn": handler}) as rig:
        job_id = await rig.put("stubborn", policy=Policy(retry=Retry.fixed(10, jitter="none")))
        for _ in range(2):
            await eventually(lambda: rig.jobs_delayed(), what="it waits for its next attempt")
            rig.advance(10)
            await rig.agent.promote(10)
        job = await rig.ended(job_id)

        assert attempts == [1, 2, 3]
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)
        assert [event.delay_seconds for event in rig.listeners.of(EventKind.RETRY)] == [10, 10]


@pytest.mark.parametrize("error", [SystemExit(2), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
@pytest.mark.asyncio
async def test_what_would_end_a_program_fails_the_attempt_and_the_worker_lives(error: BaseException) -> None:
    async with Rig({"bad": raising(error), "good": raising(Reject("ok"))}) as rig:
        job = await rig.ended(await rig.put("bad", policy=ONE_ATTEMPT))
        other = await rig.ended(await rig.put("good"))

        assert (job.state, job.reason, job.attempts) == (JobState.FAILED, FailReason.EXHAUSTED, 1)
        assert job.error is not None
        assert type(error).__qualname__ in job.error
        assert other.reason is FailReason.REJECTED
        assert rig.worker.busy == 0


@pytest.mark.asyncio
async def test_a_result_that_is_not_json_fails_without_a_retry() -> None:
    async def handler(job: JobContext[Any]) -> object:
        return {"when": [object()]}

    async with Rig({"odd": handler}) as rig:
        job = await rig.ended(await rig.put("odd"))

        assert (job.state, job.reason) == (JobState.FAILED, FailReason.REJECTED)
        _, detail = await rig.run_recorded(job.id)
        assert detail.error is not None
        assert "$.when[0]" in detail.error.message
        assert "object" in detail.error.message


@pytest.mark.asyncio
async def test_a_result_over_the_limit_fails_without_a_retry() -> None:
    async def handler(job: JobContext[Any]) -> str:
        return "x" * 2_000

    async with Rig({"big": handler}, limits=Limits(result_bytes=1_000)) as rig:
        job = await rig.ended(await rig.put("big"))

        assert job.reason is FailReason.REJECTED


@pytest.mark.asyncio
async def test_data_that_can_not_be_decoded_fails_the_job() -> None:
    async with Rig({"h": raising(AssertionError("never called"))}) as rig:
        schema = rig.functions.get("h")
        assert schema is not None
        schema.schema.decode = raising_at_once  # type: ignore[method-assign]
        job = await rig.ended(await rig.put("h"))

        assert (job.state, job.reason) == (JobState.FAILED, FailReason.UNDECODABLE)
        assert "unreadable" in str(job.error)


def raising_at_once(raw: bytes) -> Any:
    raise ValueError("unreadable")


@pytest.mark.asyncio
async def test_an_expired_job_is_not_started() -> None:
    release = asyncio.Event()

    async def slow(job: JobContext[Any]) -> None:
        await release.wait()

    async with Rig({"slow": slow}, slots=1, prefetch=5) as rig:
        await rig.put("slow")
        await rig.running(1)
        now = await rig.agent.store_now_us()
        late = await rig.put("slow", expires_us=now + 500_000)
        pool = rig.worker._pools[0]
        pool.prefetch = 5
        rig.worker.wake()
        await eventually(lambda: len(pool.waiting) == 1)
        rig.advance(0.6)
        release.set()
        job = await rig.ended(late)

        assert (job.state, job.reason) == (JobState.FAILED, FailReason.EXPIRED)


@pytest.mark.asyncio
async def test_a_snooze_burns_no_attempt() -> None:
    async with Rig({"later": raising(Snooze(60))}) as rig:
        job_id = await rig.put("later")
        run, _ = await rig.run_recorded(job_id)
        job = await rig.job(job_id)

        assert run.outcome is RunOutcome.SNOOZED
        assert (job.state, job.attempts, job.snoozes) == (JobState.QUEUED, 0, 1)
        assert job.due_us - job.created_us >= 60_000_000


@pytest.mark.asyncio
async def test_retry_after_chooses_the_delay() -> None:
    async with Rig({"busy": raising(RetryAfter(90))}) as rig:
        job_id = await rig.put("busy")
        run, _ = await rig.run_recorded(job_id)
        job = await rig.job(job_id)

        assert (run.outcome, job.attempts) == (RunOutcome.RETRY_AT, 1)
        assert job.due_us - job.created_us >= 90_000_000


@pytest.mark.asyncio
async def test_context_variables_do_not_reach_the_next_job() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def handler(job: JobContext[Any]) -> int:
        seen = variable.get()
        variable.set(job.data)
        return seen

    async with Rig({"h": handler}, slots=1, start=False) as rig:
        ids = await rig.put_many("h", 3)
        rig.worker._pools[0].prefetch = 5
        await rig.worker.start()
        jobs = [await rig.ended(job_id) for job_id in ids]

        assert rig.agent.calls["claim"][0] == {"default": 6}
        assert [job.result for job in jobs] == [b"0", b"0", b"0"]


@pytest.mark.asyncio
async def test_listeners_hear_of_what_was_accepted() -> None:
    async def fine(job: JobContext[Any]) -> str:
        return "fine"

    async with Rig({"fine": fine, "bad": raising(ValueError("why"))}) as rig:
        good = await rig.ended(await rig.put("fine"))
        bad = await rig.ended(await rig.put("bad", policy=ONE_ATTEMPT))
        await eventually(lambda: len(rig.listeners.events) == 4)

        assert {event.job_id for event in rig.listeners.of(EventKind.STARTED)} == {good.id, bad.id}
        (succeeded,) = rig.listeners.of(EventKind.SUCCEEDED)
        assert (succeeded.job_id, succeeded.result, succeeded.attempt) == (good.id, b'"fine"', 1)
        (failed,) = rig.listeners.of(EventKind.FAILED)
        assert (failed.job_id, failed.reason, failed.error) == (bad.id, "exhausted", "ValueError: why")
        assert len(rig.settled) == 2


@pytest.mark.asyncio
async def test_jobs_of_handlers_this_worker_has_not_are_left_alone() -> None:
    async with Rig({"known": raising(Reject())}) as rig:
        stranger = await rig.put("unknown")
        await rig.ended(await rig.put("known"))

        assert (await rig.job(stranger)).state is JobState.QUEUED
        assert (await rig.job(stranger)).claim_seq == 0
