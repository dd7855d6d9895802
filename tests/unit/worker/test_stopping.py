"""The ladder: quiet, give back, let finish, interrupt, flush, close; and a second call that is hard."""

import asyncio
from typing import Any

import pytest
import structlog

from jobmaster.model.errors import Refused
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from jobmaster.worker.context import JobContext
from jobmaster.worker.worker import WorkerState
from tests.support import eventually
from tests.unit.worker.rig import Rig


class Running:
    """A handler that ends when let, or when cancelled."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.let = asyncio.Event()
        self.cancels = 0
        self.stubborn = stubborn

    async def __call__(self, job: JobContext[Any]) -> str:
        while True:
            try:
                await self.let.wait()
            except asyncio.CancelledError:
                self.cancels += 1
                if not self.stubborn:
                    raise
            else:
                return "finished"


@pytest.mark.asyncio
async def test_running_jobs_may_finish_and_nothing_new_is_claimed() -> None:
    handler = Running()
    async with Rig({"h": handler}, slots=1) as rig:
        first, second = await rig.put_many("h", 2)
        await rig.running(1)
        stopping = asyncio.ensure_future(rig.worker.stop(30))
        await eventually(lambda: rig.worker.state is WorkerState.STOPPING)
        handler.let.set()
        await stopping

        assert (await rig.job(first)).state is JobState.SUCCEEDED
        job = await rig.job(second)
        assert (job.state, job.claim_seq) == (JobState.QUEUED, 0)
        assert handler.cancels == 0
        assert rig.worker.held == 0


@pytest.mark.asyncio
async def test_unstarted_claims_go_back_unharmed() -> None:
    async with Rig({"h": Running()}, slots=1) as rig:
        await rig.put("h")
        await rig.running(1)
        pool = rig.worker._pools[0]
        waiting = await rig.put_many("h", 3)
        pool.prefetch = 3
        rig.worker.wake()
        await eventually(lambda: len(pool.waiting) == 3)
        await rig.worker.stop(0)

        for job_id in waiting:
            job = await rig.job(job_id)
            assert (job.state, job.interrupts, job.attempts) == (JobState.QUEUED, 0, 0)


@pytest.mark.asyncio
async def test_what_does_not_finish_in_time_is_interrupted_without_burning_an_attempt() -> None:
    handler = Running()
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        stopping = asyncio.ensure_future(rig.worker.stop(30))
        await eventually(lambda: rig.worker.state is WorkerState.STOPPING)
        for _ in range(29):
            rig.advance(1)
            await asyncio.sleep(0)
        assert handler.cancels == 0
        await asyncio.sleep(0)
        rig.advance(2)
        await stopping

        job = await rig.job(job_id)
        assert (job.state, job.attempts, job.interrupts) == (JobState.QUEUED, 0, 1)
        assert [run.outcome for run in await rig.runs(job_id)] == [RunOutcome.INTERRUPTED]


@pytest.mark.asyncio
async def test_a_second_stop_does_not_wait_for_running_jobs() -> None:
    handler = Running()
    async with Rig({"h": handler}) as rig:
        await rig.put("h")
        await rig.running(1)
        stopping = asyncio.ensure_future(rig.worker.stop(30))
        await eventually(lambda: rig.worker.state is WorkerState.STOPPING)
        assert handler.cancels == 0
        await rig.worker.stop()
        await stopping

        assert handler.cancels == 1
        assert rig.worker.state is WorkerState.STOPPED


@pytest.mark.asyncio
async def test_a_handler_that_will_not_end_is_left_behind_and_its_lease_not_given_back() -> None:
    handler = Running(stubborn=True)
    async with Rig({"h": handler}) as rig:
        job_id = await rig.put("h")
        await rig.running(1)
        with structlog.testing.capture_logs() as logged:
            stopping = asyncio.ensure_future(rig.worker.stop(0))
            await eventually(lambda: handler.cancels >= 1)
            await rig.worker.stop()
            await stopping

        assert [line["handlers"] for line in logged if line["event"] == "worker.handlers_left_behind"] == [["h"]]
        assert (await rig.job(job_id)).state is JobState.RUNNING
        handler.let.set()
        await eventually(lambda: rig.worker.abandoned == 0)
        assert (await rig.job(job_id)).state is JobState.RUNNING


@pytest.mark.asyncio
async def test_a_worker_that_never_started_stops_and_stopping_twice_is_nothing() -> None:
    async with Rig({"h": Running()}, start=False) as rig:
        await rig.worker.stop()
        await rig.worker.stop()

        assert rig.worker.state is WorkerState.STOPPED


@pytest.mark.asyncio
async def test_the_card_tells_what_the_worker_is_doing() -> None:
    handler = Running()
    async with Rig({"h": handler, "g": handler}, slots=4) as rig:
        await rig.put_many("h", 3)
        await rig.running(3)
        card = rig.worker.card()

        assert card.id.startswith("rig-")
        assert (card.name, card.slots, card.busy, card.state) == ("rig", 4, 3, "running")
        assert (card.lanes, card.handlers) == (("default",), ("g", "h"))
        handler.let.set()


@pytest.mark.asyncio
async def test_a_store_that_never_answers_does_not_keep_a_worker_from_stopping() -> None:
    handler = Running()
    handler.let.set()
    async with Rig({"h": handler}) as rig:
        rig.agent.before["settle"] = [Refused("away")] * 1_000
        job_id = await rig.put("h")
        await eventually(lambda: len(rig.agent.calls["settle"]) == 1)
        with structlog.testing.capture_logs() as logged:
            stopping = asyncio.ensure_future(rig.worker.stop())

            async def stopped() -> bool:
                rig.advance(1)
                return stopping.done()

            await eventually(stopped)

        assert [line["count"] for line in logged if line["event"] == "worker.outcomes_given_up"] == [1]
        assert (await rig.job(job_id)).state is JobState.RUNNING


@pytest.mark.asyncio
async def test_the_last_outcomes_are_settled_before_it_is_over() -> None:
    handler = Running()
    async with Rig({"h": handler}, slots=50) as rig:
        settle = rig.agent.settle

        async def slowly(items: Any) -> Any:
            for _ in range(200):
                await asyncio.sleep(0)
            return await settle(items)

        rig.agent.settle = slowly  # type: ignore[method-assign]
        ids = await rig.put_many("h", 50)
        await rig.running(50)
        handler.let.set()
        await rig.worker.stop()

        assert len(rig.settled) == 50
        assert {(await rig.job(job_id)).state for job_id in ids} == {JobState.SUCCEEDED}
