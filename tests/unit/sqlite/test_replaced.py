"""A database file that is replaced under its open connections: noticed, and neither file damaged."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from jobmaster.model.errors import Refused
from jobmaster.sqlite import Database, open_database


def make(path: Path, value: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE note (value)")
        connection.execute("INSERT INTO note VALUES (?)", (value,))


async def notes(database: Database) -> list[str]:
    return await database.read(lambda c: [value for (value,) in c.execute("SELECT value FROM note ORDER BY 1")])


async def add(database: Database, value: str) -> None:
    await database.write(lambda c: c.execute("INSERT INTO note VALUES (?)", (value,)).rowcount)


def whole(path: Path) -> list[str]:
    """What another process finds, which must be sound."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [value for (value,) in connection.execute("SELECT value FROM note ORDER BY 1")]


@pytest.mark.asyncio
async def test_nothing_is_written_to_a_file_that_nobody_looks_at_any_more(tmp_path: Path) -> None:
    file, other = tmp_path / "jobs.db", tmp_path / "other.db"
    make(file, "old")
    make(other, "new")
    database = open_database(str(file))
    # In the log, which is nobody's once the file is another one.
    await add(database, "in the log")
    before = database.generation
    os.replace(other, file)

    with pytest.raises(Refused, match="replaced"):
        await add(database, "lost")

    assert database.generation == before + 1
    assert await notes(database) == ["new"]
    await add(database, "then")
    assert await notes(database) == ["new", "then"]
    database.close()
    assert whole(file) == ["new", "then"]


@pytest.mark.asyncio
async def test_who_only_reads_finds_the_new_file(tmp_path: Path) -> None:
    file, other = tmp_path / "jobs.db", tmp_path / "other.db"
    make(file, "old")
    make(other, "new")
    database = open_database(str(file))
    assert await notes(database) == ["old"]
    os.replace(other, file)
    assert await notes(database) == ["new"]
    assert database.generation == 1
    database.close()


def test_an_end_of_the_process_leaves_the_log_of_the_new_file_alone(tmp_path: Path) -> None:
    file, other = tmp_path / "jobs.db", tmp_path / "other.db"
    make(file, "old")
    make(other, "new")
    program = """
import asyncio, os, sys
from jobmaster.model.errors import Refused
from jobmaster.sqlite import open_database
async def main():
    database = open_database(sys.argv[1])
    await database.write(lambda c: c.execute("INSERT INTO note VALUES ('in the log')").rowcount)
    os.replace(sys.argv[2], sys.argv[1])
    try:
        await database.write(lambda c: 0)
    except Refused:
        pass
    await database.write(lambda c: c.execute("INSERT INTO note VALUES ('then')").rowcount)
    # Neither file is closed in order.
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program, str(file), str(other)], check=True, timeout=30)
    assert whole(file) == ["new", "then"]


@pytest.mark.asyncio
async def test_a_file_that_is_gone_is_made_anew_and_has_nothing_in_it(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    make(file, "old")
    kept = shutil.copyfile(file, tmp_path / "kept.db")
    database = open_database(str(file))
    await add(database, "more")
    file.unlink()
    with pytest.raises(Refused):
        await notes(database)
    with pytest.raises(Refused, match="tables are gone"):
        await add(database, "lost")
    database.close()
    assert whole(kept) == ["old"]
