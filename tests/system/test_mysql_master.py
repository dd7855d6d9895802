"""The master on MariaDB: what it refuses, how its sessions are set, and one migration at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pymysql
import pytest
import pytest_asyncio

from jobmaster.contracts.master import MasterStore
from jobmaster.master import open_master
from jobmaster.master.sql import dialects
from jobmaster.master.sql.master import SqlMaster
from jobmaster.model.errors import Refused, UnsafeStore
from jobmaster.model.states import JobState
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters.harness import held, record, sample
from tests.contract.test_server_masters import ServerHarness
from tests.servers import Mariadb
from tests.support import eventually

pytestmark = pytest.mark.asyncio


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


def connected(url: str) -> "pymysql.Connection[Any]":
    port = int(url.rpartition(":")[2].partition("/")[0])
    return pymysql.connect(
        host="127.0.0.1", port=port, user="root", database=url.rpartition("/")[2] or None, autocommit=True
    )


def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.fixture
def server(own_mariadb: Callable[..., Mariadb]) -> Mariadb:
    return own_mariadb()


async def test_what_forgets_is_refused_unless_that_is_accepted(server: Mariadb, opened: Callable[..., Any]) -> None:
    for setting, unsafe, safe in (("innodb_flush_log_at_trx_commit", "2", "1"),):
        execute(server.url, f"SET GLOBAL {setting} = {unsafe}")
        with pytest.raises(UnsafeStore, match=rf"{setting}.*{unsafe}(.|\n)*accept_unsafe"):
            await opened(server.url)
        accepted = await opened(server.url, accept_unsafe=True)
        assert any(setting in finding for finding in (await accepted.probe()).findings)
        execute(server.url, f"SET GLOBAL {setting} = {safe}")
        report = await accepted.probe()
        assert report.findings == ()
        assert "MariaDB" in report.facts["server"]


async def test_what_can_not_work_is_refused_whatever_is_accepted(server: Mariadb) -> None:
    for setting, bad, good in (
        ("read_only", "ON", "OFF"),
        ("max_allowed_packet", "1048576", "16777216"),
        ("default_storage_engine", "MyISAM", "InnoDB"),
    ):
        execute(server.url, f"SET GLOBAL {setting} = {bad}")
        with pytest.raises(UnsafeStore) as refusal:
            await master_at(server.url, accept_unsafe=True).open()
        assert (refusal.value.setting, refusal.value.found) == (setting, bad)
        assert "accept_unsafe" not in str(refusal.value)
        execute(server.url, f"SET GLOBAL {setting} = {good}")


async def test_sessions_do_not_follow_the_servers_own_settings(server: Mariadb, opened: Callable[..., Any]) -> None:
    for setting in ("sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'", "time_zone = '+09:00'"):
        execute(server.url, f"SET GLOBAL {setting}")
    master = await opened(server.url)
    assert isinstance(master, SqlMaster)
    found = await master._read(
        lambda connection: connection.exec_driver_sql(
            "SELECT @@sql_mode, @@time_zone, @@innodb_lock_wait_timeout, @@max_statement_time, "
            "@@idle_transaction_timeout"
        ).one(),
        at_once=True,
    )
    assert "STRICT_ALL_TABLES" in found[0]
    assert "NO_BACKSLASH_ESCAPES" not in found[0]
    assert tuple(found[1:]) == ("+00:00", 10, 60, 30)


async def test_a_killed_connection_is_not_noticed(mysql_url: str, opened: Callable[..., Any]) -> None:
    """KILL between two statements, and in the middle of one, where the server still says so before it goes."""
    master = await opened(mysql_url)
    assert isinstance(master, SqlMaster)
    database = mysql_url.rpartition("/")[2]
    ours = f"SELECT id FROM information_schema.processlist WHERE db = '{database}' AND id <> CONNECTION_ID()"
    (job,) = jobs = [held()]
    await master.insert(jobs)
    for (number,) in execute(mysql_url, ours):
        execute(mysql_url, f"KILL {number}")
    assert await master.get([job.job.id]) == [job.job]

    [[table]] = execute(mysql_url, "SHOW TABLES LIKE '%job'")
    with connected(mysql_url) as locker, locker.cursor() as cursor:
        locker.begin()
        cursor.execute(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", (job.job.id,))
        update = f"UPDATE {table} SET due_us = 7 WHERE id = '{job.job.id}'"
        moving = asyncio.ensure_future(master._engine.write(lambda c: c.exec_driver_sql(update).rowcount))
        waiting = f"{ours} AND info LIKE 'UPDATE %'"
        [[number]] = await eventually(lambda: execute(mysql_url, waiting), within=30)
        execute(mysql_url, f"KILL {number}")
        await eventually(lambda: (number,) not in execute(mysql_url, waiting), within=30)
        locker.rollback()
    assert await moving == 1


async def test_a_migration_that_hangs_is_named(mysql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "LOCK_SECONDS", 0)
    with connected(mysql_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK(CONCAT('jobmaster ', MD5(CONCAT(DATABASE(), 'master'))), 5)")
        master = master_at(mysql_url)
        with pytest.raises(Refused, match="schema is being changed by somebody else"):
            await master.open()
        cursor.execute("SELECT RELEASE_ALL_LOCKS()")
        await master.open()
        await master.close()


async def test_a_batch_larger_than_a_packet_is_written(mysql_url: str, opened: Callable[..., Any]) -> None:
    master = await opened(mysql_url)
    jobs = [held(data=b'"' + b"\\" * (128 * 1024 - 2) + b'"') for _ in range(200)]
    await master.insert(jobs)
    assert await master.get([jobs[-1].job.id]) == [jobs[-1].job]


async def test_an_error_does_not_tell_what_was_to_be_written(mysql_url: str, opened: Callable[..., Any]) -> None:
    master = await opened(mysql_url)
    with pytest.raises(Refused) as refused:
        await master.insert([held(handler="x" * 300, data=b'"a secret"')])
    told: BaseException | None = refused.value
    while told is not None:
        assert "secret" not in str(told)
        told = told.__cause__


async def test_a_move_waits_for_nobody_elses_rows(mysql_url: str) -> None:
    """Records that another mover has, and jobs that a planner has, in tables so small that reading them whole would be
    as quick as looking for the batch."""
    harness = ServerHarness(mysql_url, "test")
    try:
        master = await harness.open()
        await master.insert([held() for _ in range(10)])
        ended = [sample(JobState.SUCCEEDED) for _ in range(40)]
        outbox = await harness.outbox([record(job, seq) for seq, job in enumerate(ended, 1)])
        assert outbox is not None
        with connected(mysql_url) as other, other.cursor() as cursor:
            # Else it would keep all that it looked at.
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            other.begin()
            cursor.execute(f"SELECT seq FROM {outbox} WHERE seq % 2 = 0 FOR UPDATE")
            cursor.execute(f"SELECT id FROM {master._tables.job.name} FOR UPDATE")
            async with asyncio.timeout(5):
                report = await master.move("transport-1", outbox, 100)
            other.rollback()
        assert report.moved == 20
        assert execute(mysql_url, f"SELECT COUNT(*) FROM {outbox}") == [(20,)]
        assert len([job for job in await master.get([job.id for job in ended]) if job is not None]) == 20
    finally:
        await harness.close()
