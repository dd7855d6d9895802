"""Three `jobmaster worker` processes under load: one is killed, one stopped, one more comes, and a transcript of it."""

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from jobmaster import JobState, Scheduler
from jobmaster.contracts.values import JobFilter
from jobmaster.enqueue import Enqueue
from tests.sizes import FULL_ONLY, SIZES
from tests.support import eventually
from tests.system.fleet.processes import Fleet, fleet
from tests.system.fleet.shop import Pack, Work

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(180 + 6 * SIZES.lease_seconds)]

TTL = SIZES.lease_seconds
LEASES = {
    "TIMINGS__LEASE_TTL": str(TTL),
    "TIMINGS__LEASE_BEAT": str(TTL / 3),
    "TIMINGS__LEASE_MARGIN": str(TTL / 6),
}
BURST = 200
WORK_SECONDS = 0.02


class Transcript:
    """What happened, each line with its time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self._began:6.2f} s  {text}")
        print(self.lines[-1])


@pytest.mark.parametrize("sql_kind", ["postgres", pytest.param("mysql", marks=FULL_ONLY)], indirect=True)
async def test_workers_come_and_go_under_load_and_every_job_runs(tmp_path: Path, sql_url: str) -> None:
    with fleet(tmp_path, sql_url, {"transport-1": sql_url}, LEASES) as shop:
        async with shop.cluster().connect() as scheduler:
            ids = await rehearse(shop, scheduler, Transcript())
            for job_id in ids:
                await scheduler.result(job_id, timeout=60)
            page = await scheduler.list(state=JobState.FAILED)
            assert page.jobs == ()
            ended = Counter(job for job, _ in shop.notes("ends"))
    assert set(ended) == set(ids)
    # A job may run twice only where its worker was killed; nothing it did before its end was committed then.
    assert sum(times - 1 for times in ended.values()) <= SLOTS


SLOTS = 5


async def rehearse(shop: Fleet, scheduler: Scheduler, transcript: Transcript) -> list[str]:
    """The ids of all jobs that were enqueued on the way."""
    ids: list[str] = []

    async def burst(then: str) -> None:
        handles = await scheduler.many(Enqueue(Pack, Work(seconds=WORK_SECONDS)) for _ in range(BURST))
        ids.extend(handles.ids)
        transcript.say(f"{BURST} jobs enqueued, {len(ids)} in all; {then}")

    async def drained_by(pids: set[int]) -> None:
        """Return once each of these has ended some of the jobs enqueued last."""
        last = set(ids[-BURST:])
        await eventually(lambda: pids <= {pid for job, pid in shop.notes("ends") if job in last}, within=60)

    async def alive() -> set[int]:
        return {worker.pid for worker in await scheduler.operations.workers() if worker.alive}

    arguments = ("--agent", "transport-1", "--lanes", "default,mail", "--slots", str(SLOTS))
    one, two, three = await asyncio.gather(*(shop.worker(*arguments, "--name", f"w{n}") for n in (1, 2, 3)))
    assert await alive() == {one.pid, two.pid, three.pid}
    transcript.say(f"three workers registered: {one.pid}, {two.pid}, {three.pid}")
    # The reapers of all three must have watched for a whole lease before they end any.
    began = time.monotonic()
    await eventually(lambda: time.monotonic() - began > TTL * 7 / 6 + 1, within=2 * TTL + 10)

    await burst("all three work")
    await drained_by({one.pid, two.pid, three.pid})
    killed = one.kill()
    transcript.say(f"kill -9 {one.pid}")
    await burst("two work")
    await drained_by({two.pid, three.pid})

    async def freed() -> bool:
        where = JobFilter(states=frozenset({JobState.RUNNING}))
        page = await scheduler._agents["transport-1"].peek(where, None, 1_000)
        return not any((job.worker or "").startswith("w1-") for job in page.jobs)

    await eventually(freed, within=TTL + 30)
    transcript.say(f"nothing is leased to {one.pid} any more, {time.monotonic() - killed:.2f} s after (TTL {TTL:g} s)")

    await burst("two work")
    stopped = two.send(signal.SIGTERM)
    transcript.say(f"SIGTERM to {two.pid}")
    assert await asyncio.to_thread(two.wait) == 0
    transcript.say(f"{two.pid} has drained and left, {time.monotonic() - stopped:.2f} s after")
    assert two.pid not in {worker.pid for worker in await scheduler.operations.workers()}

    four = await shop.worker(*arguments, "--name", "w4")
    transcript.say(f"one more worker registered: {four.pid}")
    await burst("the third and the new one work")
    await drained_by({three.pid, four.pid})

    def all_done() -> bool:
        return {job for job, _ in shop.notes("ends")} >= set(ids)

    await eventually(all_done, within=60)
    shares = Counter(pid for _, pid in shop.notes("ends"))
    transcript.say(f"all {len(ids)} jobs have ended; by process: {dict(shares)}")
    return ids
