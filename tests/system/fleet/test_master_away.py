"""Master and agent on different servers, and the master stops: work goes on, and the history follows."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from jobmaster import JobEvent, JobState, MasterUnavailable, Runtime
from jobmaster.contracts.namespace import table_prefix
from tests.servers import Mariadb, Postgres, ask
from tests.sizes import FULL_ONLY, SIZES
from tests.support import eventually
from tests.system.fleet.processes import Fleet, fleet
from tests.system.fleet.shop import Pack, Wait, Work

pytestmark = [pytest.mark.alone, pytest.mark.asyncio, pytest.mark.timeout(180 + 4 * SIZES.master_away_seconds)]

ENQUEUERS = 4
FEWEST_WINDOWS = 4
ROOM = 200
"""Jobs that may be under way: so that draining and enqueueing are measured together."""
CATCH_UP_SECONDS = 60.0
SHARE = 0.9


class Load:
    """Enqueues for as long as it runs, as fast as the jobs are drained."""

    def __init__(self) -> None:
        self.enqueued: list[str] = []
        self.drained = 0
        self._room = asyncio.Semaphore(ROOM)
        self._going = True

    async def _enqueue(self, runtime: Runtime) -> None:
        while self._going:
            await self._room.acquire()
            job = await runtime.scheduler.once_now(Pack, Work())
            self.enqueued.append(job.id)

    async def ended(self, _: JobEvent) -> None:
        """A job has succeeded, this one's or another."""
        self.drained += 1
        self._room.release()

    async def rates(self, seconds: float) -> tuple[float, float]:
        """Enqueued and drained a second: of the seconds looked at the upper quartile, as a machine that is busy with
        something else makes some of them slow whether the master is there or not."""
        windows = [await self._second() for _ in range(max(FEWEST_WINDOWS, round(seconds)))]
        enqueued, drained = (quantiles(rates, n=4)[2] for rates in zip(*windows, strict=True))
        return enqueued, drained

    async def _second(self) -> tuple[float, float]:
        began, enqueued, drained = time.monotonic(), len(self.enqueued), self.drained
        await eventually(lambda: time.monotonic() - began >= 1, within=30)
        passed = time.monotonic() - began
        return (len(self.enqueued) - enqueued) / passed, (self.drained - drained) / passed

    @asynccontextmanager
    async def on(self, runtime: Runtime) -> AsyncIterator[None]:
        """Enqueue during the block; all that was begun is stored at its end."""
        tasks = [asyncio.create_task(self._enqueue(runtime)) for _ in range(ENQUEUERS)]
        try:
            yield
            self._going = False
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


@pytest.fixture
def master(own_server: Callable[..., Postgres | Mariadb]) -> Postgres | Mariadb:
    return own_server()


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path, master: Postgres | Mariadb) -> Iterator[Fleet]:
    """The agent is a file, or a database on another server than the master, of its kind or not."""
    kind = request.param
    url = f"sqlite:///{tmp_path / 'agent.db'}" if kind == "file" else request.getfixturevalue(f"{kind}_url")
    with fleet(tmp_path, master.url, {"transport-1": url}) as made:
        yield made


def take_away(master: Postgres | Mariadb, how: str) -> Callable[[], Any]:
    """Stop the master; gives what brings it back."""
    if how == "hangs":
        master.freeze()
        return master.thaw
    if how == "killed":
        master.kill()
    else:
        master.stop()
    return master.start


async def refused_in_time(enqueue: Any) -> float:
    began = time.monotonic()
    with pytest.raises(MasterUnavailable):
        await enqueue
    return time.monotonic() - began


async def is_running(runtime: Runtime, job_id: str) -> bool:
    return (await runtime.scheduler.get(job_id)).state is JobState.RUNNING


async def is_registered(runtime: Runtime, name: str) -> bool:
    return name in {card.name for _, card in await runtime.master.workers()}


def recorded(master: Postgres | Mariadb) -> tuple[int, int, int, int]:
    """Jobs and runs in the history, and how many different ones; fewer different ones would be doubled ones."""
    prefix = table_prefix("fleet")
    counting = (
        f"SELECT (SELECT count(*) FROM {prefix}history WHERE state = 'succeeded'), "
        f"(SELECT count(DISTINCT id) FROM {prefix}history), (SELECT count(*) FROM {prefix}run), "
        f"(SELECT count(*) FROM (SELECT DISTINCT job_id, token FROM {prefix}run) AS different)"
    )
    [(jobs, different, runs, different_runs)] = ask(master.url, counting)
    return jobs, different, runs, different_runs


@pytest.mark.parametrize(
    ("sql_kind", "shop", "how"),
    [
        ("postgres", "postgres", "hangs"),
        ("postgres", "file", "stopped"),
        ("mysql", "postgres", "hangs"),
        pytest.param("postgres", "mysql", "hangs", marks=FULL_ONLY),
        pytest.param("mysql", "mysql", "killed", marks=FULL_ONLY),
    ],
    indirect=["sql_kind", "shop"],
)
async def test_work_goes_on_while_the_master_is_away_and_the_history_follows(
    shop: Fleet, master: Postgres | Mariadb, how: str
) -> None:
    work = Load()
    async with shop.cluster(on_succeeded=work.ended).run() as runtime:
        await runtime.add_worker(slots=20)
        scheduler = runtime.scheduler
        async with work.on(runtime):
            await work.rates(2.0)
            before = await work.rates(SIZES.master_away_seconds / 2)
            long = await scheduler.once_now(Wait, {"until": str(shop.folder / "never")})
            await eventually(lambda: is_running(runtime, long.id))

            back = take_away(master, how)
            try:
                began = time.monotonic()
                took = [await refused_in_time(scheduler.once_now(Pack, Work(), durability="master"))]
                took.append(await refused_in_time(scheduler.once_after(Pack, timedelta(hours=1), Work())))
                asked = time.monotonic()
                assert (await scheduler.get(long.id)).state is JobState.RUNNING
                answered = time.monotonic() - asked

                during = await work.rates(SIZES.master_away_seconds - (time.monotonic() - began))
                # After that: two processes on one file are slower than one, wherever the master is.
                late = await shop.worker("--agent", "transport-1", "--lanes", "mail", "--name", "late")
                mailed = await scheduler.once_now("mail", {})
                assert await mailed.result(timeout=30) == late.pid

            finally:
                back()
            returned = time.monotonic()
            await eventually(lambda: runtime._link.problem is None, within=15, what="the master is back")
            noticed = time.monotonic() - returned
            durable = await scheduler.once_now(Pack, Work(), durability="master")
            assert await durable.result(timeout=30)
            await work.rates(1.0)
        await scheduler.cancel(long.id)
        expected = len(work.enqueued) + 2
        # All but the one that the other process ran.
        await eventually(lambda: work.drained >= expected - 1, within=30)

        async def complete() -> bool:
            jobs, different, runs, _ = await asyncio.to_thread(recorded, master)
            return jobs >= expected and different > expected and runs >= expected

        await eventually(complete, within=CATCH_UP_SECONDS, what="the history is complete")
        caught_up = time.monotonic() - returned
        jobs, different, runs, different_runs = recorded(master)
        assert jobs == expected
        # The long job was cancelled: it is in the history too, with its run.
        assert (different, different_runs) == (expected + 1, runs)
        await eventually(lambda: is_registered(runtime, "late"), within=15)

    figures = {
        "enqueued a second": f"{before[0]:.0f} before, {during[0]:.0f} away",
        "drained a second": f"{before[1]:.0f} before, {during[1]:.0f} away",
        "MasterUnavailable after": ", ".join(f"{seconds:.2f} s" for seconds in took),
        "get answered after": f"{answered:.3f} s",
        "return noticed after": f"{noticed:.2f} s",
        "history complete after": f"{caught_up:.1f} s, {expected} jobs",
    }
    for name, figure in figures.items():
        print(f"{how}: {name}: {figure}")
    assert max(took) < 2.0
    assert answered < 2.0
    assert during[0] >= SHARE * before[0]
    assert during[1] >= SHARE * before[1]
