"""One cluster with a Postgres agent and a NATS agent at once: one scheduler, jobs and schedules on both."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from jobmaster import Enqueue, JobState, Runtime
from tests.servers import Nats
from tests.servers.resolver import Endpoint
from tests.support import eventually
from tests.system.fleet.processes import fleet
from tests.system.fleet.shop import Pack, Work

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

JOBS = 60


async def test_one_scheduler_drives_a_database_and_a_broker(
    tmp_path: Path, postgres_url: str, nats_server: Endpoint
) -> None:
    agents = {"database": postgres_url, "broker": nats_server.url}
    nats = nats_server.process
    options = {"broker": {"monitor": nats.monitor} if isinstance(nats, Nats) else {"accept_unsafe": True}}
    with fleet(tmp_path, f"sqlite:///{tmp_path / 'master.db'}", agents, options=options) as shop:
        on = {name: await shop.worker("--agent", name, "--slots", "5") for name in agents}
        async with shop.cluster().run() as runtime:
            scheduler = runtime.scheduler
            drawn = [await scheduler.once_now(Pack, Work(seconds=0.01)) for _ in range(JOBS)]
            for job in drawn:
                await job.result(timeout=60)
            infos = [await scheduler.get(job.id) for job in drawn]
            assert {info.agent for info in infos} == {"database", "broker"}
            for name in agents:
                bulk = await scheduler.many(Enqueue(Pack, Work(), agent=name) for _ in range(JOBS))
                assert {await scheduler.result(job_id, timeout=60) for job_id in bulk.ids} == {on[name].pid}
                late = await scheduler.once_after(Pack, timedelta(seconds=1), Work(), agent=name)
                assert await late.result(timeout=60) == on[name].pid
                await scheduler.recurring(Pack, timedelta(seconds=1), Work(), key=f"tick-{name}", agent=name)
            for name in agents:
                await eventually(partial(ticked, runtime, f"tick-{name}"), within=60)


async def ticked(runtime: Runtime, schedule: str) -> bool:
    """Whether two ticks of a schedule have run."""
    page = await runtime.scheduler.list(schedule=schedule, state=JobState.SUCCEEDED)
    return len(page.jobs) >= 2
