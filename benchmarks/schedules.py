"""Schedules that are all due in the same minute: how long until their jobs are on the agent, and what it costs.

    python -m benchmarks.schedules postgresql://user@host/database --schedules 10000
    python -m benchmarks.schedules postgresql://user@host/database --lateness 20

With `--lateness`: how late the jobs of schedules of a second start, for so many seconds, on a worker that is kept busy
with 60 % of the jobs a second that it drained just before from a backlog, in the same process.

Master and agent are the given database, under a cluster name of their own; its tables are left behind. The schedules
are written first and made due together; the time runs from there until the agent counts all their jobs.
"""

import argparse
import asyncio
import json
import time
from datetime import timedelta
from typing import Any, ClassVar

from sqlalchemy import Connection, event

from benchmarks.subject import AGENT, SLOTS, NoOp, drained, enqueue
from jobmaster import ClusterBuilder, JobContext, JobHandler, cron
from jobmaster.contracts.scheduling import Schedule
from jobmaster.enqueue import Enqueue
from jobmaster.master.sql.schedule_rows import ScheduleRows
from jobmaster.runtime import Runtime
from jobmaster.testing.masters.harness import SECOND

POLL_SECONDS = 0.005


BACKLOG = 10_000
"""Jobs drained to know what the worker can do."""
SHARE = 0.6
SECOND_SCHEDULES = 20
FEED_SECONDS = 0.02
SETTLING = 4.0
"""Seconds of the load that do not count: the first ticks may not be planned ahead yet."""


class OnTime(JobHandler):
    """Notes how long after its tick it runs."""

    counts = False
    late: ClassVar[list[float]] = []

    async def execute(self, job: JobContext) -> None:
        if OnTime.counts:
            OnTime.late.append(time.time() - job.due_at.timestamp())


def due_together(count: int, now_us: int) -> list[Schedule]:
    """Each minute, next at the coming one, to be looked at now."""
    next_us = (now_us // (60 * SECOND) + 1) * 60 * SECOND
    rule = cron("* * * * *").to_json()
    return [
        Schedule(
            key=f"schedule-{number}",
            handler="no-op",
            recurrence=rule,
            data=b'{"number":%d}' % number,
            anchor_us=now_us,
            created_us=now_us,
            next_us=next_us,
            look_us=now_us,
        )
        for number in range(count)
    ]


async def measure(url: str, count: int) -> dict[str, Any]:
    config = ClusterBuilder(f"schedules-{time.time_ns() % 10**9}").ignore_environment().add_handlers(NoOp)
    config.use_master(url)
    config.add_agent(AGENT).use_agent(url)
    config.set("timings.plan_ahead", 60)
    cluster = config.build().without_workers()
    async with cluster.connect() as scheduler:
        master: Any = scheduler._master
        master = getattr(master, "_master", master)
        now_us = await master.store_now_us()
        rows, schedules = ScheduleRows(master._tables), due_together(count, now_us)

        def fill(connection: Connection) -> None:
            rows.save(connection, schedules)

        await master._write(fill)
    runtime = Runtime(cluster)
    await runtime._open()
    try:
        opened: Any = getattr(runtime.master, "_master", runtime.master)
        statements = 0

        def note(*_: Any) -> None:
            nonlocal statements
            statements += 1

        engine = getattr(opened._engine, "_engine", None)
        if engine is not None:
            event.listen(engine.sync_engine, "before_cursor_execute", note)
        agent = runtime.agents[AGENT]
        begun, before = time.perf_counter(), statements
        runtime._make_duties().start()
        there = 0
        while there < count:
            await asyncio.sleep(POLL_SECONDS)
            there = sum(lane.delayed + lane.ready for lane in await agent.stats())
        on_agent = time.perf_counter() - begun
        counts: dict[str, int] = {}
        while counts.get("queued", 0) < count:
            await asyncio.sleep(POLL_SECONDS)
            counts = {str(entry.state): entry.count for entry in await runtime.master.counts(10**6)}
        return {
            "schedules": count,
            "on the agent after s": round(on_agent, 2),
            "known to be there after s": round(time.perf_counter() - begun, 2),
            "master statements per schedule": round((statements - before) / count, 3),
        }
    finally:
        await runtime.stop(0)


async def measure_lateness(url: str, seconds: float) -> dict[str, Any]:
    """From the tick to the handler's first line, by the store's and this machine's clock, which are one."""
    config = ClusterBuilder(f"lateness-{time.time_ns() % 10**9}").ignore_environment().add_handlers(NoOp, OnTime)
    config.use_master(url)
    config.add_agent(AGENT).use_agent(url)
    config.log(level="warning")
    async with config.build().run() as runtime:
        scheduler = runtime.scheduler
        await enqueue(runtime, BACKLOG)
        rate = await drained(runtime, BACKLOG)
        await runtime.add_worker(agent=AGENT, slots=SLOTS)
        for number in range(SECOND_SCHEDULES):
            await scheduler.recurring(OnTime, timedelta(seconds=1), key=f"each-second-{number}")
        offered, begun = 0, time.perf_counter()
        measured_from = begun + SETTLING
        while (now := time.perf_counter()) < measured_from + seconds:
            OnTime.counts = now >= measured_from
            due = int((now - begun) * rate * SHARE) - offered
            if due > 0:
                await scheduler.many(Enqueue(NoOp) for _ in range(due))
                offered += due
            await asyncio.sleep(FEED_SECONDS)
        OnTime.counts = False
        took = time.perf_counter() - begun
        left = BACKLOG + offered - NoOp.ran
    late = sorted(OnTime.late)
    p99 = late[len(late) * 99 // 100]
    return {
        "drained, jobs/s": round(rate),
        "offered, jobs/s": round(offered / took),
        "not run yet at the end": left,
        "ticks": len(late),
        "lateness p50, ms": round(late[len(late) // 2] * 1e3, 1),
        "lateness p99, ms": round(p99 * 1e3, 1),
        "latest, ms": round(late[-1] * 1e3, 1),
        "p99 of at most 500 ms": "met" if p99 <= 0.5 else "missed",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--lateness", type=float, metavar="SECONDS")
    options = parser.parse_args()
    late = options.lateness
    found = measure(options.url, options.schedules) if late is None else measure_lateness(options.url, late)
    print(json.dumps(asyncio.run(found), indent=2))


if __name__ == "__main__":
    main()
