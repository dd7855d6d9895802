"""Workers and lanes, steered from another process's connection: on one SQLite file, with real time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmaster import ClusterBuilder, Enqueue, JobContext, JobHandler, JobState, NameInvalid, OptionInvalid, Scheduler
from jobmaster.contracts.operating import OperationState
from jobmaster.model.errors import WorkerNotFound
from jobmaster.runtime import Runtime
from tests.support import eventually

PATIENCE = 30.0
doors: dict[str, asyncio.Event] = {}
"""Opened by a test: what lets its handlers end."""
order: list[str] = []


class Hold(JobHandler):
    """Runs until its test opens the door."""

    async def execute(self, job: JobContext) -> None:
        order.append(job.lane)
        await doors[str(job.data["door"])].wait()


class Pass(JobHandler):
    async def execute(self, job: JobContext) -> None:
        order.append(job.lane)


@asynccontextmanager
async def cluster(
    folder: Path, shape: Callable[[ClusterBuilder], object] = lambda config: config.add_worker("clerk").slots(2)
) -> AsyncIterator[tuple[Runtime, Scheduler]]:
    """A runtime, and a scheduler that only connects, as another process would."""
    config = ClusterBuilder("steering").ignore_environment().add_handlers(Hold, Pass).log(level="error").poll(0.1)
    config.use_master(f"sqlite:///{folder / 'jobs.db'}").shutdown(5.0)
    shape(config)
    built = config.build()
    async with built.run() as runtime, built.connect() as scheduler:
        doors[str(folder)] = asyncio.Event()
        order.clear()
        yield runtime, scheduler
        doors.pop(str(folder)).set()


async def held(scheduler: Scheduler, folder: Path, count: int, **options: Any) -> list[str]:
    jobs = await scheduler.many(Enqueue(Hold, {"door": str(folder)}, **options) for _ in range(count))
    return list(jobs.ids)


async def running(scheduler: Scheduler) -> int:
    return (await scheduler.counts()).total(JobState.RUNNING)


@pytest.mark.asyncio
async def test_workers_are_quieted_resumed_scaled_and_stopped(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (runtime, scheduler):
        (info,) = await scheduler.workers.get("clerk")
        assert (info.slots, info.alive) == (2, True)
        (quiet,) = await scheduler.workers.quiet("clerk")
        assert quiet.state == "quiet"
        ids = await held(scheduler, tmp_path, 5)
        (resumed,) = await scheduler.workers.resume(info.id)
        assert resumed.state == "running"
        await eventually(lambda: runtime.workers[0].card.busy == 2, PATIENCE)
        (scaled,) = await scheduler.workers.scale("clerk", 4)
        assert scaled.slots == 4
        await eventually(lambda: runtime.workers[0].card.busy == 4, PATIENCE)
        (scaled,) = await scheduler.workers.scale("clerk", 1)
        assert (scaled.slots, scaled.busy) == (1, 4)
        doors[str(tmp_path)].set()
        await asyncio.gather(*(scheduler.result(job_id, timeout=PATIENCE) for job_id in ids))
        await scheduler.workers.stop("clerk")
        await asyncio.wait_for(runtime.stop_requested.wait(), PATIENCE)
        kinds = [event.kind for event in await scheduler.topology.history(info.id)]
        assert [kind for kind in kinds if kind in ("worker.scaled", "worker.quiet", "worker.resumed", "worker.stopped")]


@pytest.mark.asyncio
async def test_a_lane_of_its_own_slots_is_scaled_by_name(tmp_path: Path) -> None:
    def shape(config: ClusterBuilder) -> None:
        config.add_worker("clerk").slots(2).lane("default").lane("mails", 1)

    async with cluster(tmp_path, shape) as (runtime, scheduler):
        (info,) = await scheduler.workers.scale("clerk", 3, lane="mails")
        assert info.slots == 5
        with pytest.raises(OptionInvalid, match="one that worker"):
            await scheduler.workers.scale("clerk", 3, lane="mail")
        with pytest.raises(OptionInvalid, match="slots of its own here: mails"):
            runtime.workers[0].scale(3, "default")
        with pytest.raises(OptionInvalid, match="from 1 to 10,000"):
            await scheduler.workers.scale("clerk", 0)
        with pytest.raises(WorkerNotFound, match="did you mean 'clerk'"):
            await scheduler.workers.quiet("clerc")
        with pytest.raises(WorkerNotFound):
            await runtime.remove_worker("clerc")


@pytest.mark.asyncio
async def test_a_lane_is_paused_drained_and_resumed(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (runtime, scheduler):
        ids = await held(scheduler, tmp_path, 3)
        await eventually(lambda: runtime.workers[0].card.busy == 2, PATIENCE)
        draining = asyncio.ensure_future(scheduler.lanes.drain("default"))
        await eventually(lambda: _paused(scheduler), PATIENCE)
        assert not draining.done()
        doors[str(tmp_path)].set()
        drained = await asyncio.wait_for(draining, PATIENCE)
        assert (drained.paused, drained.running) == (True, 0)
        later = await scheduler.once_now(Pass)
        (part,) = (await scheduler.lanes.get("default")).agents
        assert (part.ready, part.workers, part.slots) == (2, 1, 2)
        await scheduler.lanes.resume("default")
        await asyncio.gather(*(scheduler.result(one, timeout=PATIENCE) for one in [*ids, later.id]))
        kinds = [event.kind for event in await scheduler.topology.history("default")]
        assert kinds == ["lane.resumed", "lane.drained"]


async def _paused(scheduler: Scheduler) -> bool:
    return (await scheduler.lanes.get("default")).paused


@pytest.mark.asyncio
async def test_a_lane_is_purged_and_moved_and_what_runs_is_left_alone(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (runtime, scheduler):
        ids = await held(scheduler, tmp_path, 4)
        await eventually(lambda: runtime.workers[0].card.busy == 2, PATIENCE)
        far = await scheduler.once_after(Pass, timedelta(days=1))
        moved = await scheduler.bulk.wait((await scheduler.lanes.move("default", "later")).id)
        assert (moved.state, moved.changed) == (OperationState.DONE, 3)
        later = await scheduler.lanes.get("later")
        assert (later.waiting, later.held, later.unserved) == (2, 1, True)
        assert (await scheduler.operations.unserved_lanes()) == ("later",)
        purged = await scheduler.bulk.wait((await scheduler.lanes.purge("later")).id)
        assert purged.changed == 3
        assert (await scheduler.get(far.id)).state is JobState.CANCELLED
        assert await running(scheduler) == 2
        assert len([one for one in ids if (await scheduler.get(one)).state is JobState.CANCELLED]) == 2
        for verb in (scheduler.lanes.pause, scheduler.lanes.resume, scheduler.lanes.drain, scheduler.lanes.purge):
            with pytest.raises(NameInvalid, match="expected one of default"):
                await verb("defalt")
        with pytest.raises(NameInvalid, match="agent 'standalon'"):
            await scheduler.lanes.pause("default", agent="standalon")


@pytest.mark.asyncio
async def test_workers_come_and_go_and_one_that_drains_goes_by_itself(tmp_path: Path) -> None:
    def shape(config: ClusterBuilder) -> None:
        config.add_worker("duties").mode("coordinator")

    async with cluster(tmp_path, shape) as (runtime, scheduler):
        assert list(runtime.workers) == []
        ids = await held(scheduler, tmp_path, 3)
        drain = await runtime.add_worker("drain", slots=3, mode="drain")
        await eventually(lambda: drain.card.busy == 3, PATIENCE)
        extra = await runtime.add_worker("extra", slots=1)
        await runtime.remove_worker(extra, timeout=0)
        assert [one.id for one in list(runtime.workers)] == [drain.id]
        doors[str(tmp_path)].set()
        await asyncio.gather(*(scheduler.result(one, timeout=PATIENCE) for one in ids))
        await asyncio.wait_for(runtime.stop_requested.wait(), PATIENCE)
        assert list(runtime.workers) == []
        assert await scheduler.workers.list() == ()
        with pytest.raises(OptionInvalid, match="a coordinator runs no jobs"):
            await runtime.add_worker(mode="coordinator")


@pytest.mark.asyncio
@pytest.mark.parametrize(("mode", "coordinates"), [("coordinator", True), ("full", True), ("execution", False)])
async def test_modes_say_who_coordinates(tmp_path: Path, mode: str, coordinates: bool) -> None:
    def shape(config: ClusterBuilder) -> None:
        config.add_worker().mode(mode)

    async with cluster(tmp_path, shape) as (runtime, _):
        assert ("operator" in runtime.health) is coordinates
        assert ("reaper:standalone" in runtime.health) is True
        assert bool(runtime.workers) is (mode != "coordinator")


@pytest.mark.asyncio
@pytest.mark.parametrize("strict", [False, True])
async def test_lanes_that_share_slots_get_their_share(tmp_path: Path, strict: bool) -> None:
    def shape(config: ClusterBuilder) -> None:
        section = config.add_worker().slots(1).prefetch(0).lane("default", weight=None if strict else 3).lane("bulk")
        if strict:
            section.lane_order("strict")

    async with cluster(tmp_path, shape) as (runtime, scheduler):
        await scheduler.workers.quiet(runtime.workers[0].id)
        await scheduler.many(Enqueue(Pass, lane=lane) for _ in range(80) for lane in ("bulk", "default"))
        await scheduler.workers.resume(runtime.workers[0].id)
        await eventually(lambda: len(order) == 160, PATIENCE)
        # Until the first lane was empty.
        share = order[:80].count("default")
        assert 68 <= share <= 74 if strict else 56 <= share <= 64


@pytest.mark.asyncio
async def test_a_scale_hint_says_how_many_workers_would_be_kept_busy(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (runtime, scheduler):
        await held(scheduler, tmp_path, 12)
        await eventually(lambda: runtime.workers[0].card.busy == 2, PATIENCE)
        hint = await scheduler.lanes.scale_hint(["default"], slots_per_worker=2, target_seconds=0.0)
        assert (hint.ready, hint.running, hint.workers, hint.slots) == (10, 2, 1, 2)
        assert hint.wanted == 6
        patient = await scheduler.lanes.scale_hint(["default"], slots_per_worker=2, target_seconds=3_600)
        assert patient.wanted == 1
        bounded = await scheduler.lanes.scale_hint(["default"], slots_per_worker=2, target_seconds=0.0, most=4)
        assert bounded.wanted == 4
        with pytest.raises(OptionInvalid, match="slots_per_worker"):
            await scheduler.lanes.scale_hint(["default"], slots_per_worker=0)
