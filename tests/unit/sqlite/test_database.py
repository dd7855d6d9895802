"""The database layer: group commit, settings, faults of the file and what is said about them."""

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from jobmaster.model.errors import ConfigurationError, Refused
from jobmaster.sqlite import Database, open_database, path_of
from jobmaster.sqlite.core import core_engine
from tests.support import eventually


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database(str(tmp_path / "jobs.db"), busy_seconds=0.3)
    await database.write(lambda c: c.execute("CREATE TABLE t (x INTEGER NOT NULL)"))
    yield database
    database.close()


def insert(x: object) -> "Insert":
    return Insert(x)


class Insert:
    """A function for `write` that says what it did."""

    def __init__(self, x: object) -> None:
        self.x = x

    def __call__(self, connection: sqlite3.Connection) -> int:
        return connection.execute("INSERT INTO t VALUES (?)", (self.x,)).rowcount


def rows(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY rowid")]


@pytest.mark.asyncio
async def test_the_file_is_the_owners_and_safe(database: Database) -> None:
    names = ("journal_mode", "synchronous", "foreign_keys", "trusted_schema", "cell_size_check", "wal_autocheckpoint")
    found = await database.write(lambda c: [c.execute(f"PRAGMA {name}").fetchone()[0] for name in names])
    assert found == ["wal", 2, 1, 0, 1, 0]
    for name in (database.path, f"{database.path}-wal"):
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
    assert database.findings() == ()
    os.chmod(database.path, 0o644)
    assert "chmod 600" in database.findings()[0]


@pytest.mark.asyncio
async def test_it_closes_with_writes_still_waiting(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "closing.db"))
    release, entered = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        entered.set()
        assert release.wait(10)

    held = database.write(hold)
    assert await asyncio.to_thread(entered.wait, 10)
    waiting = database.write(lambda c: c.execute("CREATE TABLE t (x)").fetchall())
    closing = threading.Thread(target=database.close, daemon=True)
    closing.start()
    await eventually(lambda: database._writer._closing)
    release.set()
    await asyncio.gather(held, waiting)
    await eventually(lambda: not closing.is_alive())


@pytest.mark.asyncio
async def test_waiting_writes_share_one_commit(database: Database) -> None:
    release, entered = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        entered.set()
        assert release.wait(10)

    blocked = database.write(hold)
    assert await asyncio.to_thread(entered.wait, 10)
    seen_by_first: list[int] = []
    reader = sqlite3.connect(database.path, check_same_thread=False)
    pending = [database.write(insert(x), then=lambda _: seen_by_first.append(len(rows(reader)))) for x in range(50)]
    assert not any(future.done() for future in pending)
    release.set()
    await asyncio.gather(blocked, *pending)
    assert await database.read(rows) == list(range(50))
    assert seen_by_first == [50] * 50
    reader.close()


@pytest.mark.asyncio
async def test_a_failing_function_undoes_its_own_writes_only(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (99)")
        raise LookupError("mine")

    answers = await asyncio.gather(
        database.write(insert(1)), database.write(fail), database.write(insert(2)), return_exceptions=True
    )
    assert answers[0] == answers[2] == 1
    assert isinstance(answers[1], LookupError)
    with pytest.raises(LookupError):
        await database.write(fail)
    assert await database.read(rows) == [1, 2]


@pytest.mark.asyncio
async def test_a_constraint_is_the_callers_own_error(database: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        await database.write(insert(None))


@pytest.mark.asyncio
async def test_a_read_can_not_write(database: Database) -> None:
    with pytest.raises(Refused, match="permission"):
        await database.read(insert(1))


@pytest.mark.asyncio
async def test_a_locked_file_is_refused_and_recovers(database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Refused, match="locked by another process"):
        await database.write(insert(1))
    other.execute("ROLLBACK")
    other.close()
    assert await database.write(insert(2)) == 1
    assert await database.read(rows) == [2]


@pytest.mark.asyncio
async def test_a_full_file_is_refused_and_recovers_when_there_is_room(database: Database) -> None:
    pages = await database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 2}"))
    with pytest.raises(Refused, match="max_page_count"):
        await database.write(insert("x" * 100_000))
    answers = await asyncio.gather(
        database.write(insert(1)),
        database.write(insert("x" * 100_000)),
        database.write(insert(2)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [int, Refused, int]
    assert await database.read(rows) == [1, 2]
    await database.write(lambda c: c.execute("PRAGMA max_page_count = 100000"))
    assert await database.write(insert("x" * 100_000)) == 1


@pytest.mark.asyncio
async def test_writes_may_be_awaited_in_any_loop(database: Database) -> None:
    async def elsewhere() -> int:
        return await database.write(insert(7))

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == 1
    assert await database.read(rows) == [7]


@pytest.mark.asyncio
async def test_one_database_per_file_until_the_last_close(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    first, second = open_database(str(tmp_path / "a.db")), open_database(str(tmp_path / "link.db"))
    assert first is second
    first.close()
    await second.write(lambda c: c.execute("CREATE TABLE t (x)"))
    second.close()
    with pytest.raises(Refused, match="closed"):
        await second.write(lambda c: c.execute("INSERT INTO t VALUES (1)"))
    with pytest.raises(Refused, match="closed"):
        await second.read(rows)
    third = open_database(str(tmp_path / "a.db"))
    assert third is not first
    assert await third.read(rows) == []
    third.close()


@pytest.mark.asyncio
async def test_the_log_starts_again_after_a_checkpoint(database: Database) -> None:
    for _ in range(60):
        await database.write(insert("x" * 1_000_000))
    assert await asyncio.to_thread(os.path.getsize, f"{database.path}-wal") < 40_000_000


@pytest.mark.asyncio
async def test_core_statements_run_in_the_writers_transaction(database: Database) -> None:
    from sqlalchemy import text

    def both(connection: sqlite3.Connection) -> None:
        engine = core_engine(connection)
        with engine.begin() as core:
            core.execute(text("INSERT INTO t VALUES (1)"))
        assert connection.in_transaction
        engine.dispose()
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(both)
    assert await database.read(rows) == []


def test_a_missing_folder_and_a_wrong_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"gone does not exist"):
        open_database(str(tmp_path / "gone" / "x.db"))
    with pytest.raises(Refused, match="expected a database file"):
        open_database(str(tmp_path))
    (tmp_path / "text.db").write_text("not a database at all, " * 100)
    with pytest.raises(Refused, match="not an SQLite database"):
        open_database(str(tmp_path / "text.db"))


def test_urls_are_relative_or_absolute_and_nothing_else(tmp_path: Path) -> None:
    assert path_of(f"sqlite:///{tmp_path}/x.db") == f"{tmp_path}/x.db"
    assert path_of("sqlite:///x.db") == os.path.realpath("x.db")
    for url in ("sqlite://", "sqlite:///", "sqlite:///:memory:", "postgresql:///x", "sqlite:///x.db?mode=ro", "x.db"):
        with pytest.raises(ConfigurationError, match="expected sqlite:///FILE"):
            path_of(url)
