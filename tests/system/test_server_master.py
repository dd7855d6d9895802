"""The master on a database server: many processes bring it up, and the server goes and comes back."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import create_async_engine

from jobmaster.contracts.master import MasterStore
from jobmaster.master import open_master
from jobmaster.master.sql.server_engine import ServerEngine
from jobmaster.model.errors import MasterUnavailable, SchemaOutdated
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters.harness import held
from tests.servers import Mariadb, Postgres
from tests.support import eventually


def master_at(url: str, **options: Any) -> MasterStore:
    return open_master(url, cluster="test", clock=ManualClock(), options=options)


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    masters: list[MasterStore] = []

    async def start(url: str, **options: Any) -> MasterStore:
        master = master_at(url, **options)
        masters.append(master)
        await master.open()
        return master

    yield start
    for master in masters:
        await master.close()


@pytest.mark.asyncio
async def test_many_processes_may_bring_the_schema_up_at_once(sql_url: str) -> None:
    masters = [master_at(sql_url) for _ in range(6)]
    reports = await asyncio.gather(*(master.open() for master in masters))
    assert len({report.incarnation for report in reports}) == 1
    await asyncio.gather(*(master.close() for master in masters))


PROGRAM = """
import asyncio, sys
from jobmaster.master import open_master
from jobmaster.testing.clock import ManualClock

async def main():
    master = open_master(sys.argv[1], cluster="test", clock=ManualClock())
    print((await master.open()).incarnation)
    await master.close()

asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_another_process_that_migrates_is_waited_for(sql_url: str) -> None:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, sql_url, stdout=pipe, stderr=pipe)
        for _ in range(2)
    ]
    answers = [await process.communicate() for process in processes]
    assert [error.decode() for _, error in answers] == ["", ""]
    assert len({incarnation for incarnation, _ in answers}) == 1


@pytest.mark.asyncio
async def test_without_migrate_nothing_is_created(sql_url: str, opened: Callable[..., Any]) -> None:
    with pytest.raises(SchemaOutdated, match="jobmaster migrate"):
        await opened(sql_url, migrate=False)
    engine = create_async_engine(ServerEngine(sql_url)._url)
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda c: inspect(c).get_table_names()) == []
    await engine.dispose()


@pytest.mark.asyncio
async def test_a_restart_of_the_server_is_not_noticed_by_who_comes_later(
    own_server: Callable[..., Postgres | Mariadb], opened: Callable[..., Any]
) -> None:
    server = own_server()
    master = await opened(server.url)
    jobs = [held() for _ in range(4)]
    # Several pooled connections, all of which end with the server.
    await asyncio.gather(*(master.insert([job]) for job in jobs[:3]))
    server.kill()
    with pytest.raises(MasterUnavailable):
        await master.store_now_us()
    server.start()
    assert (await master.get([jobs[0].job.id]))[0] is not None
    server.restart()
    await master.insert(jobs[3:])
    assert [job.id for job in await master.get([item.job.id for item in jobs])] == [item.job.id for item in jobs]


@pytest.mark.asyncio
async def test_a_frozen_server_leaves_the_pool_usable(
    own_server: Callable[..., Postgres | Mariadb], opened: Callable[..., Any]
) -> None:
    server = own_server()
    master = await opened(server.url)
    await master.store_now_us()
    server.freeze()
    for _ in range(20):
        waiting = asyncio.ensure_future(master.insert([held()]))
        await asyncio.wait({waiting}, timeout=0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    server.thaw()

    async def answers() -> bool:
        return bool(await asyncio.wait_for(asyncio.gather(*(master.insert([held()]) for _ in range(15))), 5))

    await eventually(answers)


@pytest.mark.asyncio
async def test_a_database_that_is_not_there_is_named(sql_url: str) -> None:
    master = master_at(f"{sql_url}_not")
    with pytest.raises(Exception, match=r"does not exist|Unknown database") as caught:
        await master.open()
    assert not isinstance(caught.value, MasterUnavailable)
