"""`jobmaster worker` processes: registered, killed, stopped, frozen; others take their jobs over."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobmaster import JobHandle, JobState, Runtime, __version__
from jobmaster.contracts.values import Control, ControlKind, JobFilter
from jobmaster.enqueue import Enqueue
from tests.sizes import FULL_ONLY, SIZES
from tests.support import eventually
from tests.system.fleet.processes import Fleet, WorkerProcess, fleet
from tests.system.fleet.shop import Pack, Stamp, Work

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(120 + 8 * SIZES.lease_seconds)]

TTL = SIZES.lease_seconds
LEASES = {
    "TIMINGS__LEASE_TTL": str(TTL),
    "TIMINGS__LEASE_BEAT": str(TTL / 3),
    "TIMINGS__LEASE_MARGIN": str(TTL / 6),
}
SLOTS = 5
FLOOD = 2_000
"""Jobs of 10 ms: so many that whoever polls a second later than the other finds enough left."""
STARTED = 150
TAKE_OVER_SECONDS = 2.0
"""Beyond the TTL: within which a dead worker's jobs run again."""
RETURN_SECONDS = 1.0
"""Within which jobs that a stopped worker had not started run elsewhere."""


KINDS = ["sqlite", "postgres", pytest.param("mysql", marks=FULL_ONLY)]


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Master and agent in one database."""
    kind = request.param
    url = f"sqlite:///{tmp_path / 'shop.db'}" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    with fleet(tmp_path, url, {"transport-1": url}, LEASES) as made:
        yield made


async def begun(shop: Fleet, count: int, by: WorkerProcess | None = None) -> list[tuple[str, int]]:
    """The runs that have begun, of one worker or all, once there are that many."""

    def found() -> list[tuple[str, int]] | None:
        runs = [(job, pid) for job, pid in shop.notes("begins") if by is None or pid == by.pid]
        return runs if len(runs) >= count else None

    runs = await eventually(found, within=20)
    assert runs is not None
    return runs


async def trusting(runtime: Runtime) -> None:
    """Return once this process has watched the store for so long that it ends leases that lapse."""
    began = time.monotonic()
    await eventually(lambda: time.monotonic() - began > TTL * 7 / 6 + 1, within=2 * TTL + 5, what="reapers trust")


async def test_the_command_as_it_is_written_registers_a_worker(shop: Fleet) -> None:
    worker = await shop.worker("--agent", "transport-1", "--lanes", "default,mail", "--slots", "50")
    async with shop.cluster().connect() as scheduler:
        (info,) = await scheduler.operations.workers()
        assert (info.agent, info.host, info.pid) == ("transport-1", socket.gethostname(), worker.pid)
        assert (info.lanes, info.slots, info.alive) == (("default", "mail"), 50, True)
        assert info.handlers == tuple(sorted(shop.cluster().registry.names))
        ((agent, card),) = await scheduler._master.workers()
        assert (agent, card.pid, card.version, card.slots) == ("transport-1", worker.pid, __version__, 50)

        async def beaten() -> bool:
            ((_, later),) = await scheduler._master.workers()
            return later.beat_us > card.beat_us

        await eventually(beaten, within=30)
        mailed = await scheduler.once_now("mail", {})
        packed = await scheduler.once_now(Pack, Work())
        assert [await mailed.result(timeout=20), await packed.result(timeout=20)] == [worker.pid, worker.pid]
        worker.send(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 0
        assert await scheduler.operations.workers() == ()
        assert await scheduler._master.workers() == []


async def held_by(runtime: Runtime, worker: str) -> set[str]:
    """The jobs leased to a worker of that name."""
    page = await runtime.agents["transport-1"].peek(JobFilter(states=frozenset({JobState.RUNNING})), None, 1_000)
    return {job.id for job in page.jobs if (job.worker or "").startswith(f"{worker}-")}


@pytest.mark.parametrize("shop", ["sqlite", "postgres", "mysql"], indirect=True)
@pytest.mark.alone
async def test_a_killed_workers_running_and_buffered_jobs_are_taken_over(shop: Fleet) -> None:
    async with shop.cluster().run() as runtime:
        await trusting(runtime)
        victim = await shop.worker("--agent", "transport-1", "--slots", str(SLOTS), "--name", "victim")
        heir = await shop.worker("--agent", "transport-1", "--slots", str(SLOTS), "--name", "heir")
        # Short ones, so that it has claimed some more than it runs.
        await runtime.scheduler.many(Enqueue(Pack, Work(seconds=0.01)) for _ in range(FLOOD))
        await begun(shop, STARTED, victim)
        # SQLite sees that the process is gone: by the time we look some of its jobs may run again. One that was stopped
        # with the file locked would hold up everybody.
        seen = not shop.master.startswith("sqlite")

        async def stopped_with_both() -> bool:
            victim.send(signal.SIGSTOP)
            held, begins = await held_by(runtime, "victim"), {job for job, _ in shop.notes("begins")}
            if held - begins and held & begins:
                return True
            victim.send(signal.SIGCONT)
            return False

        if seen:
            await eventually(stopped_with_both, within=20)
        killed = victim.kill()
        held = await held_by(runtime, "victim")
        started = held & {job for job, _ in shop.notes("begins")}

        async def run_again() -> bool:
            return held <= {job for job, pid in shop.notes("ends") if pid == heir.pid}

        await eventually(run_again, within=TTL + TAKE_OVER_SECONDS + killed - time.monotonic())
        buffered = len(held - started)
        after = f"{time.monotonic() - killed:.2f} s, TTL {TTL:g} s"
        print(f"{len(started)} running and {buffered} buffered jobs taken over after {after}")
        assert started or not seen
        assert buffered or not seen
        for job_id in held:
            assert await runtime.scheduler.result(job_id, timeout=10) == heir.pid
            assert (await runtime.scheduler.get(job_id)).attempts == 0
        await eventually(lambda: len({job for job, _ in shop.notes("ends")}) == FLOOD, within=30)


@pytest.mark.alone
async def test_a_stopped_worker_gives_back_what_it_had_not_started(shop: Fleet) -> None:
    async with shop.cluster().run() as runtime:
        victim = await shop.worker("--agent", "transport-1", "--slots", str(SLOTS), "--name", "victim")
        heir = await shop.worker("--agent", "transport-1", "--slots", str(SLOTS), "--name", "heir")
        jobs = await runtime.scheduler.many(Enqueue(Pack, Work(seconds=0.01)) for _ in range(FLOOD))
        await begun(shop, STARTED, victim)
        stopped = victim.send(signal.SIGTERM)

        async def given_back() -> bool:
            return not await held_by(runtime, "victim")

        await eventually(given_back, within=RETURN_SECONDS)
        print(f"given back after {time.monotonic() - stopped:.2f} s")
        assert await asyncio.to_thread(victim.wait) == 0
        await eventually(lambda: len(shop.notes("ends")) >= FLOOD, within=60)
        begins = [job for job, _ in shop.notes("begins")]
        # Given back, not lapsed: each ran once.
        assert sorted(begins) == sorted(jobs.ids)
        assert heir.process.poll() is None


async def stopped_in_a_run(runtime: Runtime, victim: WorkerProcess, shop: Fleet) -> JobHandle:
    """A job in whose run the process was stopped, at a moment when it held no lock: nobody could write to a file."""
    tried = 0
    while True:
        tried += 1
        job = await runtime.scheduler.once_now(Stamp, Work(seconds=1.0))
        await begun(shop, tried)
        victim.send(signal.SIGSTOP)
        try:
            async with asyncio.timeout(TTL):
                await runtime.agents["transport-1"].control(Control(ControlKind.RESUME))
        except TimeoutError:
            victim.send(signal.SIGCONT)
            await job.result(timeout=30)
        else:
            return job


async def test_a_worker_that_slept_past_its_lease_can_not_commit(shop: Fleet) -> None:
    async with shop.cluster().run() as runtime:
        await trusting(runtime)
        victim = await shop.worker("--agent", "transport-1", "--slots", str(SLOTS), "--name", "victim")
        job = await stopped_in_a_run(runtime, victim, shop)
        heir = await shop.worker("--agent", "transport-1", "--slots", str(SLOTS), "--name", "heir")
        assert await job.result(timeout=TTL + 30) == heir.pid
        victim.send(signal.SIGCONT)
        await eventually(lambda: shop.notes("late"), within=30, what="the late result is told")
        assert shop.notes("late") == [(job.id, victim.pid)]
        (refused,) = [line for line in victim.log.splitlines() if "worker.outcome_refused" in line]
        assert "stale" in refused
        assert job.id in refused
        info = await job.refresh()
        assert (info.state, info.result, info.attempts, info.crashes) == (JobState.SUCCEEDED, heir.pid, 0, 0)
        # It goes on working.
        victim.send(signal.SIGTERM)
        assert await asyncio.to_thread(victim.wait) == 0
