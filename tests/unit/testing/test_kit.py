"""The kit for testing handlers."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from jobmaster import ClusterBuilder, JobContext, JobHandler, Retry, testing
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState


@dataclass
class Order:
    number: int


class Ship(JobHandler[Order]):
    retry = Retry.fixed(timedelta(minutes=1), max_attempts=3)

    async def execute(self, job: JobContext[Order]) -> str:
        if job.data.number < 0 and job.attempt < 3:
            raise ValueError("no such order")
        return f"shipped {job.data.number}"


class Bill(JobHandler[Order]):
    def execute(self, job: JobContext[Order]) -> int:
        return job.data.number * 10


def config() -> ClusterBuilder:
    return ClusterBuilder("shop").ignore_environment().use_memory_for_master().add_handlers(Ship, Bill)


@pytest.mark.asyncio
async def test_drain_runs_what_is_due_and_leaves_the_rest() -> None:
    async with testing.cluster(config()) as shop:
        now = await shop.scheduler.once_now(Ship, Order(1))
        later = await shop.scheduler.once_after(Bill, timedelta(minutes=5), Order(2))

        assert await shop.drain() == {RunOutcome.SUCCEEDED: 1}

        assert (await now.refresh()).result == "shipped 1"
        assert (await later.refresh()).state is JobState.QUEUED
        assert [job.data for job in shop.enqueued(Bill)] == [{"number": 2}]

        await shop.advance(timedelta(minutes=5))
        assert await later.result(timeout=1) == 20


@pytest.mark.asyncio
async def test_a_failed_attempt_is_retried_when_time_has_passed() -> None:
    async with testing.cluster(config()) as shop:
        job = await shop.scheduler.once_now(Ship, Order(-1))
        assert await shop.drain() == {RunOutcome.RETRY_AT: 1}
        assert await shop.drain() == {}
        assert await shop.advance(timedelta(minutes=1)) == {RunOutcome.RETRY_AT: 1}
        assert await shop.advance(timedelta(minutes=1)) == {RunOutcome.SUCCEEDED: 1}
        seen = await job.refresh()
        assert [run.outcome for run in seen.runs] == ["retry_at", "retry_at", "succeeded"]
        assert seen.runs[0].error_type == "ValueError"


@pytest.mark.asyncio
async def test_a_held_job_and_a_schedule_run_on_the_virtual_clock() -> None:
    async with testing.cluster(config()) as shop:
        far = await shop.scheduler.once_after(Bill, timedelta(days=30), Order(3))
        assert (await far.refresh()).state is JobState.HELD
        await shop.advance(timedelta(days=30))
        assert await far.result(timeout=1) == 30

        await shop.scheduler.recurring(Ship, timedelta(hours=1), Order(4), key="hourly")
        for _ in range(3):
            await shop.advance(timedelta(hours=1))
        assert [job.state for job in shop.enqueued(Ship)] == [JobState.SUCCEEDED] * 3
