"""The store's clock is set while schedules are planned on Postgres: no storm of ticks, none twice, and they go on."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import TickState
from jobmaster.master.ticks import RECORDED
from jobmaster.model.states import JobState
from jobmaster.model.terms import MISFIRE_US
from jobmaster.scheduler import Scheduler
from tests.servers.postgres import Postgres
from tests.sizes import SIZES
from tests.support import eventually
from tests.system.fleet.test_store_restarts import SetClock, passed
from tests.system.test_schedule_failover import all_jobs, all_ticks

pytestmark = [pytest.mark.asyncio, pytest.mark.slow, pytest.mark.timeout(120 + 10 * SIZES.lease_seconds)]

TTL = SIZES.lease_seconds
SECOND = 1_000_000
AN_HOUR = 3_600
FEW = 3
AHEAD = 5
KEYS = ("ahead", "one-by-one")


class Tick(JobHandler):
    async def execute(self, job: JobContext) -> None:
        """Nothing: what counts is that it ran."""


def cluster(url: str) -> Cluster:
    config = ClusterBuilder("clocks").ignore_environment().add_handlers(Tick).use_master(url)
    config.add_agent("transport-1").use_agent(url)
    config.add_worker().slots(20)
    config.set("timings.lease_ttl", TTL).set("timings.lease_beat", TTL / 3).set("timings.lease_margin", TTL / 6)
    # Little, as a clock set back has to come to the end of what was planned.
    config.set("timings.plan_ahead", AHEAD)
    config.log(level="warning")
    return config.build()


async def begin(scheduler: Scheduler, master: MasterStore) -> None:
    """Return once the schedules have run: one is planned ahead, of the other each tick when it is due."""
    await scheduler.recurring(Tick, timedelta(seconds=1), key="ahead")
    await scheduler.recurring(Tick, timedelta(seconds=1), key="one-by-one", overlap="skip")
    await go_on_after(master, 0)


async def go_on_after(master: MasterStore, after_us: int) -> None:
    """Return once some ticks after that instant have run, of each schedule."""

    async def ran() -> bool:
        for key in KEYS:
            entries = await all_ticks(master, key, 2**60)
            done = [e for e in entries if e.job is not None and e.job.state is JobState.SUCCEEDED]
            if sum(entry.occurrence.tick_us > after_us for entry in done) < FEW:
                return False
        return True

    await eventually(ran, within=45 + 3 * TTL, what="ticks run")


async def assert_none_twice(master: MasterStore) -> None:
    assert {tick: count for tick, count in (await all_jobs(master)).items() if count > 1} == {}


async def test_a_store_set_an_hour_forward_is_a_downtime_of_an_hour(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    clock = SetClock(server)
    async with cluster(server.url).run() as runtime:
        master = runtime.master
        await begin(runtime.scheduler, master)
        before_us = await master.store_now_us()
        clock.set(AN_HOUR)
        planned_until_us = await master.store_now_us() + (AHEAD - AN_HOUR) * SECOND
        after_us = before_us + AN_HOUR * SECOND
        await go_on_after(master, after_us + 2 * SECOND)
        await assert_none_twice(master)
        for key in KEYS:
            entries = await all_ticks(master, key, after_us - MISFIRE_US)
            between = [e.occurrence for e in entries if e.occurrence.tick_us > planned_until_us]
            assert {(each.state, each.note) for each in between} <= {(TickState.SKIPPED, "misfire")}
            assert len(between) <= RECORDED


async def test_a_store_set_an_hour_back_repeats_no_tick_and_goes_on_where_it_was(
    own_postgres: Callable[..., Postgres],
) -> None:
    server = own_postgres()
    clock = SetClock(server)
    async with cluster(server.url).run() as runtime:
        master = runtime.master
        await begin(runtime.scheduler, master)
        clock.set(-AN_HOUR)
        back_us = await master.store_now_us()
        # Planners wait for a lease first; what they do then is the question.
        await passed(TTL + 3)
        for key in KEYS:
            entries = await all_ticks(master, key, 2**60)
            assert [e for e in entries if e.occurrence.tick_us < back_us + (AN_HOUR - 120) * SECOND] == []
        clock.set(0)
        await go_on_after(master, await master.store_now_us())
        await assert_none_twice(master)
        for key in KEYS:
            ticks = [entry.occurrence.tick_us for entry in await all_ticks(master, key, 2**60)]
            assert ticks == list(range(ticks[0], ticks[-1] + SECOND, SECOND))


async def test_schedules_go_on_once_a_clock_set_back_has_caught_up(own_postgres: Callable[..., Postgres]) -> None:
    """Every tick has one job, and none is missed: the clock has passed none of them by."""
    server = own_postgres()
    clock = SetClock(server)
    async with cluster(server.url).run() as runtime:
        master = runtime.master
        await begin(runtime.scheduler, master)
        latest_us = max([(await all_ticks(master, key, 2**60))[-1].occurrence.tick_us for key in KEYS])
        clock.set(-8)
        await go_on_after(master, latest_us)
        await assert_none_twice(master)
        for key in KEYS:
            entries = await all_ticks(master, key, latest_us)
            ticks = [entry.occurrence.tick_us for entry in entries]
            assert ticks == list(range(ticks[0], ticks[-1] + SECOND, SECOND))
            assert {(e.occurrence.state, e.occurrence.note) for e in entries} <= {
                (TickState.PLANNED, None),
                (TickState.SKIPPED, "overlap"),
            }
