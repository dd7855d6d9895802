"""Migrations on servers: one that was cut off anywhere is done again and leads to the same tables, and who works by the
code of before goes on beside the new ones."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, inspect, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from jobmaster import ClusterBuilder, JobContext, JobHandler
from jobmaster.contracts.clock import SystemClock
from jobmaster.enqueue import Enqueue
from jobmaster.master import open_master
from jobmaster.master.sql.server_engine import DRIVERS
from jobmaster_agents.mysql import MysqlAgent
from tests.servers.databases import create_database

pytestmark = [pytest.mark.asyncio, pytest.mark.slow]


async def migrate_master(url: str) -> None:
    master = open_master(url, cluster="test", clock=SystemClock())
    try:
        await master.open()
    finally:
        await master.close()


async def migrate_agent(url: str) -> None:
    agent = MysqlAgent(url, cluster="test", name="transport-1")
    try:
        await agent.open()
    finally:
        await agent.close()


class CutOffError(Exception):
    """As if the process had ended: its connection did, and what was not committed is gone."""


@contextmanager
def cut(done: set[str]) -> Iterator[None]:
    """SQLAlchemy's next connections end after the first change that is not in `done`, where it goes then."""

    def after(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        change = statement.strip().partition("(")[0]
        if change.startswith(("CREATE", "ALTER", "INSERT", "UPDATE", "DELETE")) and change not in done:
            done.add(change)
            raise CutOffError

    event.listen(Engine, "after_cursor_execute", after)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", after)


async def tables(url: str) -> dict[str, str]:
    """How each is defined."""
    engine = create_async_engine(make_url(url).set(drivername="mysql+aiomysql"))
    async with engine.connect() as connection:
        names = [row[0] for row in await connection.execute(text("SHOW TABLES"))]
        made = [(await connection.execute(text(f"SHOW CREATE TABLE {name}"))).one()[1] for name in names]
    await engine.dispose()
    return dict(zip(names, made, strict=True))


@pytest.mark.parametrize("migrate", [migrate_master, migrate_agent])
async def test_a_migration_cut_off_after_any_statement_is_done_again(
    migrate: Callable[[str], Awaitable[None]], mysql_server: Any, mysql_url: str
) -> None:
    """A definition is committed at once there, so each cut leaves one more behind."""
    done: set[str] = set()
    while True:
        before = len(done)
        with cut(done):
            try:
                await migrate(mysql_url)
                break
            except CutOffError:
                assert len(done) == before + 1
    assert len(done) > 8
    whole = create_database(mysql_server.url)
    await migrate(whole)
    assert await tables(mysql_url) == await tables(whole)


MIGRATE = """
import asyncio, sys
from tests.system.test_server_migrations import migrate_master
asyncio.run(migrate_master(sys.argv[1]))
"""


async def test_a_migration_killed_between_two_revisions_is_done_again(sql_url: str) -> None:
    command = [sys.executable, "-c", MIGRATE, sql_url]
    crash = {**os.environ, "JOBMASTER_FAILPOINTS": "migration.step:crash@2"}
    killed = await asyncio.to_thread(subprocess.run, command, env=crash, capture_output=True, text=True, timeout=50)
    assert killed.returncode == 137, killed.stderr
    await migrate_master(sql_url)


class Hello(JobHandler):
    async def execute(self, job: JobContext) -> str:
        return "hello"


async def test_who_is_at_work_goes_on_beside_the_tables_of_a_later_release(sql_url: str) -> None:
    """Which are the same with more columns."""
    config = ClusterBuilder("test").ignore_environment().add_handlers(Hello).use_master(sql_url)
    config.add_agent("transport-1").use_agent(sql_url)
    config.add_worker().agent("transport-1")
    drivername = DRIVERS[make_url(sql_url).get_backend_name()]
    engine = create_async_engine(make_url(sql_url).set(drivername=drivername))
    async with config.build().run() as runtime:

        async def work() -> None:
            await runtime.scheduler.many(Enqueue(Hello) for _ in range(20))
            near = await runtime.scheduler.once_now(Hello)
            held = await runtime.scheduler.once_now(Hello, durability="master")
            for handle in (near, held):
                assert await handle.result(timeout=20) == "hello"

        await work()
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda found: inspect(found).get_table_names())
        for name in names:
            if "_history_" in name or "_run_" in name:
                continue  # a part of a table: it has the columns of the whole
            async with engine.begin() as connection:
                if name.endswith(("revision", "version")):
                    await connection.execute(text(f"UPDATE {name} SET version_num = '9999'"))
                else:
                    await connection.execute(text(f"ALTER TABLE {name} ADD COLUMN later VARCHAR(8) DEFAULT 'x'"))
        await work()
    await engine.dispose()
