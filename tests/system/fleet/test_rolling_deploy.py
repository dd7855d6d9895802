"""A new release is rolled out under load, process by process, and rolled back: nothing is lost, no attempt is burnt,
and no job runs with code that can't read its data."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from jobmaster import JobConflict, JobState, Scheduler
from tests.sizes import SIZES
from tests.support import eventually, paced, recorded
from tests.system.fleet.processes import Fleet, WorkerProcess, fleet
from tests.system.fleet.releases import Farewell, GreetFirst, GreetSecond, OneName, TwoNames, build

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(240)]

FIRST, SECOND = "tests.system.fleet.releases:first", "tests.system.fleet.releases:second"


class Enqueuer:
    """One release's program, which enqueues as long as it runs."""

    def __init__(self, scheduler: Scheduler, *, second: bool) -> None:
        self.ids: list[str] = []
        self._scheduler = scheduler
        self._second = second
        self._ended = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not await paced(self._ended, 0.02):
            if self._second:
                job = await self._scheduler.once_now(GreetSecond, TwoNames("Ann", "Bee"))
                self.ids.append((await self._scheduler.once_now(Farewell)).id)
            else:
                job = await self._scheduler.once_now(GreetFirst, OneName("Ann Bee"))
            self.ids.append(job.id)

    async def more(self, count: int) -> None:
        enough = len(self.ids) + count
        await eventually(lambda: len(self.ids) >= enough or self._task.done(), within=60)

    async def end(self) -> None:
        self._ended.set()
        await self._task


async def test_a_release_is_rolled_out_and_back_under_load(tmp_path: Path, postgres_url: str) -> None:
    with fleet(tmp_path, postgres_url, {"transport-1": postgres_url}) as shop:
        agents = {"transport-1": postgres_url}
        old_code = build(postgres_url, agents, GreetFirst)
        new_code = build(postgres_url, agents, GreetSecond, Farewell)
        async with old_code.connect() as old_client, new_code.connect() as new_client:
            await rolled(shop, old_client, new_client)


def new_ids(shop: Fleet, release: str, ids: list[str]) -> set[str]:
    return {job_id for job_id, _ in shop.notes(release)} & set(ids)


async def rolled(shop: Fleet, old_client: Scheduler, new_client: Scheduler) -> None:
    one, two = await asyncio.gather(shop.worker(app=FIRST), shop.worker(app=FIRST))
    old = Enqueuer(old_client, second=False)
    await old.more(50)
    # A new program enqueues before any worker of its release is there: its jobs wait.
    new = Enqueuer(new_client, second=True)
    await new.more(20)
    three = await shop.worker(app=SECOND)
    await new.more(60)
    await eventually(lambda: new_ids(shop, "second", new.ids), within=30, what="the new release's jobs run")
    one.send(signal.SIGTERM)
    assert await asyncio.to_thread(one.wait) == 0
    await asyncio.gather(old.more(30), new.more(30))
    assert not new_ids(shop, "first", new.ids)
    if SIZES.name == "full":
        await rolled_back(shop, three, old, new)
    two.send(signal.SIGTERM)
    assert await asyncio.to_thread(two.wait) == 0
    await asyncio.gather(old.end(), new.end())
    await all_ran_once(shop, new_client, old.ids, new.ids)


async def rolled_back(shop: Fleet, three: WorkerProcess, old: Enqueuer, new: Enqueuer) -> None:
    # Rolled back: the new worker goes, and what it would have run waits; the old release's jobs go on beside them.
    three.send(signal.SIGTERM)
    assert await asyncio.to_thread(three.wait) == 0
    await new.more(30)
    late = old.ids[-1]
    await old.more(30)
    await eventually(lambda: new_ids(shop, "first", old.ids[old.ids.index(late) :]), within=60)
    assert not new_ids(shop, "first", new.ids)
    # And out again, for good.
    await shop.worker(app=SECOND)


async def all_ran_once(shop: Fleet, client: Scheduler, old: list[str], new: list[str]) -> None:
    ids = [*old, *new]
    # Those put off for a minute, while nobody could run them, need not be waited for.
    waiting = (await client.list(state=JobState.QUEUED, limit=500)).jobs
    delayed = [info for info in waiting if info.due_at > info.created_at]
    for info in delayed:
        with contextlib.suppress(JobConflict):
            await client.reschedule(info.id, info.created_at)
    for job_id in ids:
        assert (await client.result(job_id, timeout=60)) in ("Ann Bee", None)
    for state in (JobState.FAILED, JobState.CANCELLED):
        assert (await client.list(state=state)).jobs == ()
    infos = [await recorded(client, job_id) for job_id in ids]
    assert {info.attempts for info in infos} == {0}
    assert {len(info.runs) for info in infos} == {1}
    assert not new_ids(shop, "first", new)
    ran = f"{len(old)} jobs of the first release and {len(new)} of the second ran once"
    print(f"{ran}; {len(delayed)} were put off")
