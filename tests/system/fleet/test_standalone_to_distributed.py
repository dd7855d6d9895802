"""From one file to a server, under load: the master moves, the file stays as an agent, and that agent is drained.

Jobs are enqueued all the time, some are held on the master for later, and a schedule ticks every second: nothing may be
lost, and no tick may have two jobs.
"""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from jobmaster import Indeterminate, MasterSealed, Refused, Runtime
from jobmaster.contracts.scheduling import TickState
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from tests.servers.databases import create_database, drop_database
from tests.sizes import SIZES
from tests.support import eventually, paced
from tests.system.fleet.processes import APP, ROOT, Fleet, fleet
from tests.system.fleet.shop import Pack, Wait, Work

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(400)]

SETTINGS = {"TIMINGS__TRANSIENT_THRESHOLD": "2", "TIMINGS__PLAN_AHEAD": "5", "TIMINGS__AUDIT_LAG": "1"}
HELD = 300 if SIZES.name == "short" else 5_000
SECOND = 1_000_000


class Load:
    """Enqueues through whichever runtime is the present one."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.acknowledged: list[str] = []
        self.refused = 0
        self._ended = asyncio.Event()

    async def run(self) -> None:
        while not await paced(self._ended, 0.01):
            try:
                job = await self.runtime.scheduler.once_now(Pack, Work(seconds=0.002))
            except (Indeterminate, Refused):
                self.refused += 1
            else:
                self.acknowledged.append(job.id)

    def end(self) -> None:
        self._ended.set()


async def command(shop: Fleet, *words: str) -> str:
    """Run `jobmaster …` with the settings of that fleet, and give what it says."""

    def run() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "jobmaster", *words],
            cwd=ROOT,
            env={**shop.environment(), "JOBMASTER_APP": APP},
            capture_output=True,
            text=True,
            timeout=120,
        )

    done = await asyncio.to_thread(run)
    assert done.returncode == 0, done
    print(f"$ jobmaster {' '.join(words)}\n{done.stdout}", end="")
    return done.stdout


async def test_a_standalone_cluster_becomes_a_distributed_one_under_load(tmp_path: Path, postgres_url: str) -> None:
    file, transport = f"sqlite:///{tmp_path / 'jobmaster.db'}", create_database(postgres_url)
    try:
        with (
            fleet(tmp_path, file, {"standalone": file}, SETTINGS) as before,
            fleet(tmp_path, postgres_url, {"standalone": file, "transport-1": transport}, SETTINGS) as after,
        ):
            await become_distributed(before, after)
    finally:
        drop_database(postgres_url, transport)


async def become_distributed(before: Fleet, after: Fleet) -> None:
    worker = await before.worker("--agent", "standalone", "--slots", "4")
    old = await before.cluster().start()
    load = Load(old)
    held: list[str] = []
    try:
        await old.scheduler.recurring(Pack, timedelta(seconds=1), Work(), key="tick", misfire="all(100)")
        for late in (8, 15, 3_600):
            handles = [await old.scheduler.once_after(Pack, timedelta(seconds=late), Work()) for _ in range(HELD // 3)]
            held += [handle.id for handle in handles if late < 3_600]
        gate = after.folder / "gate"
        running = await old.scheduler.once_now(Wait, {"until": str(gate)})
        loading = asyncio.create_task(load.run())
        await eventually(lambda: len(before.notes("ends")) > 100, within=60, what="work is done")

        said = await command(before, "master", "move", before.master, after.master, "--yes")
        assert "is open; start every process with that address" in said
        # Agent and workers go on, and what needs the master says why it can't.
        done = len(before.notes("ends"))
        await eventually(lambda: len(before.notes("ends")) > done + 50, within=60, what="work goes on while sealed")
        with pytest.raises(MasterSealed, match="is sealed; it is moved to"):
            await old.scheduler.once_after(Pack, timedelta(hours=1), Work())

        new = await after.cluster().start()
        try:
            load.runtime = new
            # The old processes stop at leisure: their agent is one of the new cluster's.
            worker.send(signal.SIGTERM)
            await asyncio.gather(
                after.worker("--agent", "standalone", "--slots", "4", "--name", "w1"),
                after.worker("--agent", "transport-1", "--slots", "4", "--name", "w2"),
            )
            gate.touch()
            assert await asyncio.to_thread(worker.wait) == 0
            await old.stop()
            said = await command(after, "agents", "drain", "standalone", "--to", "transport-1", "--yes")
            assert said.splitlines()[-1] == "agent standalone is drained"
            done = len(after.notes("ends"))
            await eventually(lambda: len(after.notes("ends")) > done + 50, within=60, what="work goes on")
            load.end()
            await loading
            assert await command(after, "agents", "decommission", "standalone", "--yes")
            await everything_ran_once(new, [*load.acknowledged, *held, running.id])
            print(f"{len(load.acknowledged)} enqueued meanwhile, {load.refused} refused")
        finally:
            await new.stop()
    finally:
        load.end()
        await old.stop()


async def committed_once(runtime: Runtime, ids: list[str]) -> None:
    # A few at a time: many at once wait for one another, and each of them is to be answered within seconds.
    for start in range(0, len(ids), 5):
        for runs in await asyncio.gather(*map(runtime.master.runs, ids[start : start + 5])):
            assert sum(run.outcome is RunOutcome.SUCCEEDED for run in runs) == 1, runs


async def everything_ran_once(runtime: Runtime, ids: list[str]) -> None:
    master = runtime.master
    await runtime.scheduler.pause_schedule("tick")

    async def all_ended() -> bool:
        jobs = await master.get(ids)
        return all(job is not None and job.terminal for job in jobs)

    await eventually(all_ended, within=120, what="all that was acknowledged has ended, and the master knows")
    jobs = await master.get(ids)
    assert Counter(job.state for job in jobs if job is not None) == {JobState.SUCCEEDED: len(ids)}
    await committed_once(runtime, ids)

    async def ticks_ended() -> bool:
        entries = await master.occurrences("tick", None, 1_000)
        return all(
            entry.job is not None and entry.job.terminal
            for entry in entries
            if entry.occurrence.state is TickState.PLANNED
        )

    await eventually(ticks_ended, within=60, what="every tick's job has ended")
    entries = await master.occurrences("tick", None, 1_000)
    ticks = [entry.occurrence.tick_us for entry in entries if entry.occurrence.state is not TickState.WITHDRAWN]
    assert all(later - earlier == SECOND for later, earlier in pairwise(ticks)), ticks
    planned = [entry for entry in entries if entry.occurrence.state is TickState.PLANNED]
    assert len({entry.occurrence.job_id for entry in planned}) == len(planned) > 5
    await committed_once(runtime, [entry.occurrence.job_id for entry in planned])
    states = Counter(str(entry.occurrence.state) for entry in entries)
    print(f"{len(ids)} jobs each ran once; ticks: {dict(states)}")
    far = await runtime.scheduler.list(state=JobState.HELD, limit=1)
    assert far.jobs
