"""A process that does a bit of everything and may be killed anywhere: run, killed and run again by the fault tests.

`victim.py FILE ORACLE JOBS` enqueues jobs with fixed ids (so that a second run may repeat what a first one did not get
an answer for), runs them on that file or on the agent in FAULTS_AGENT (JSON), and exits 0 once all of them are in the
history. Acknowledged enqueues and every handler's start are appended to ORACLE, outside of the database: the only
trusted witness.
"""

import asyncio
import json
import os
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Literal

from jobmaster import ClusterBuilder, JobContext, JobHandler, Retry
from jobmaster.model.states import TERMINAL
from jobmaster.scheduler import Scheduler

SPACE = uuid.UUID("6f0c1a52-7d0e-4c39-9a55-0d5f3f1d9a11")
TICK_KEY = "fault-tick"
TICKS = 2


def witness(what: str, *facts: object) -> None:
    """One line, whole, also if the process dies right after."""
    descriptor = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (" ".join([what, *map(str, facts)]) + "\n").encode())
    os.close(descriptor)


class Work(JobHandler):
    retry = Retry.fixed(timedelta(milliseconds=10))

    async def execute(self, job: JobContext) -> int:
        witness("start", job.id, job.token, os.getpid())
        number = int(job.data["number"])
        if number % 10 == 0:
            await asyncio.sleep(0.8)  # the handler's work: longer than a beat, so that its lease is extended
        if number % 10 == 1 and job.attempt == 1:
            raise ValueError("the first attempt fails")
        return number


class Sleeper(JobHandler):
    """Interrupted by its worker's stop, so that a lease is given back."""

    lane = "aside"
    begun = asyncio.Event()

    async def execute(self, job: JobContext) -> None:
        Sleeper.begun.set()
        await asyncio.sleep(60)  # the handler's work: as long as nobody interrupts it


class Tick(JobHandler):
    async def execute(self, job: JobContext) -> None:
        witness("tick", job.id, job.token, os.getpid())


def job_id(number: int) -> str:
    return str(uuid.uuid5(SPACE, str(number)))


async def enqueue(scheduler: Scheduler, jobs: int) -> None:
    for number in range(jobs):
        # A third waits for the master, a third lies beyond the threshold: held, then handed off.
        delay = timedelta(seconds=1.5 if number % 3 == 2 else 0)
        durability: Literal["agent", "master"] = "master" if number % 3 == 0 else "agent"
        await scheduler.once_after(Work, delay, {"number": number}, id=job_id(number), durability=durability)
        witness("acked", job_id(number))
    await scheduler.recurring(Tick, timedelta(seconds=1), key=TICK_KEY, overlap="queue")


async def ended(scheduler: Scheduler, jobs: int) -> bool:
    for number in range(jobs):
        if (await scheduler.get(job_id(number))).state not in TERMINAL:
            return False
    return len((await scheduler.list(handler="tick", limit=TICKS)).jobs) >= TICKS


async def main() -> None:
    file, jobs = Path(sys.argv[1]), int(sys.argv[3])
    config = ClusterBuilder("faults").add_handlers(Work, Tick, Sleeper).use_master(f"sqlite:///{file}")
    if agent := os.environ.get("FAULTS_AGENT"):
        config.add_agent("transport-1").use_agent(**json.loads(agent))
    config.lease(ttl=2.0, beat=0.2, margin=0.3).transient_threshold(timedelta(seconds=1))
    config.add_worker("victim").slots(4)
    async with config.build().run() as runtime:
        await enqueue(runtime.scheduler, jobs)
        while not await ended(runtime.scheduler, jobs):  # noqa: ASYNC110 - asks a store, which sets no event
            await asyncio.sleep(0.05)  # the handler's work: this program is not the test, it is its subject
        aside = await runtime.scheduler.once_now(Sleeper, id=job_id(-1))
        extra = await runtime.add_worker(slots=1, lanes=["aside"])
        if not (await aside.refresh()).terminal:
            await Sleeper.begun.wait()
        await extra.stop(timeout=0)
        await aside.cancel()


asyncio.run(main())
