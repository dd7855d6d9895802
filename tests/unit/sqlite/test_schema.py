"""Opening: the schema is brought up once, a newer one is refused, and a file that is up to date costs no imports."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from jobmaster.model.errors import ConfigurationError, Refused, SchemaOutdated
from jobmaster.sqlite import open_database
from jobmaster_agents.sqlite import SqliteAgent, schema
from jobmaster_agents.sqlite.tables import Tables
from tests.unit.sqlite.child import NEVER_US, make_job, open_agent

ROOT = Path(__file__).resolve().parents[3]
OPEN_AND_TELL = """
import asyncio, sys
from jobmaster_agents.sqlite import SqliteAgent
async def main():
    agent = SqliteAgent("sqlite:///" + sys.argv[1], cluster="test", name="transport-1")
    await agent.open()
    await agent.close()
asyncio.run(main())
print(sorted({"sqlalchemy", "alembic"} & set(sys.modules)))
"""


def test_the_head_is_the_newest_revision() -> None:
    files = sorted((Path(schema.__file__).parent / "migrations" / "versions").glob("r*.py"))
    assert files[-1].name[1:5] == schema.HEAD


def test_a_file_that_is_up_to_date_is_opened_without_sqlalchemy(tmp_path: Path) -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", OPEN_AND_TELL, str(tmp_path / "jobs.db")],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'agents'}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert told == ["['alembic', 'sqlalchemy']", "[]"]


@pytest.mark.asyncio
async def test_a_newer_schema_is_refused_and_named(tmp_path: Path) -> None:
    agent = open_agent(f"{tmp_path}/jobs.db")
    await agent.open()
    await agent.close()
    tables = Tables("test", "transport-1")
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        connection.execute(f"UPDATE {tables.version} SET version_num = '0999'")
        connection.commit()
    with pytest.raises(SchemaOutdated, match=r"0999.*newer version"):
        await agent.open()


@pytest.mark.asyncio
async def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError(name)

    agent = open_agent(f"{tmp_path}/jobs.db")
    monkeypatch.setattr(schema, "failpoint", fail)
    with pytest.raises(RuntimeError, match=r"migration\.step"):
        await agent.open()
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    monkeypatch.undo()
    await agent.open()
    await agent.put([make_job()], NEVER_US)
    await agent.close()


@pytest.mark.asyncio
async def test_a_store_that_was_replaced_is_refused_until_it_is_opened_anew(tmp_path: Path) -> None:
    agent = open_agent(f"{tmp_path}/jobs.db")
    await agent.open()
    meta = Tables("test", "transport-1").meta
    await agent.verbs.store.database.write(lambda c: c.execute(f"UPDATE {meta} SET incarnation = 'other'"))
    with pytest.raises(Refused, match="another one than was opened"):
        await agent.put([make_job()], NEVER_US)
    with pytest.raises(Refused, match="another one than was opened"):
        await agent.claim("w", {"default": 1}, frozenset({"send-welcome"}), 1, 1_000)
    await agent.close()
    assert (await agent.open()).incarnation == "other"
    await agent.put([make_job()], NEVER_US)
    await agent.close()


def test_options_and_other_urls_are_configuration_errors() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown options \['pragma'\]"):
        SqliteAgent("sqlite:///x.db", cluster="c", name="a", options={"pragma": 1})
    with pytest.raises(ConfigurationError, match="expected sqlite:///FILE"):
        SqliteAgent("sqlite://", cluster="c", name="a")


@pytest.mark.asyncio
async def test_a_database_opened_before_a_fork_refuses_in_the_child(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "a.db"))
    database.process += 1
    with pytest.raises(Refused, match="forked"):
        await database.write(lambda connection: None)
    with pytest.raises(Refused, match="forked"):
        await database.read(lambda connection: None)
    database.process -= 1
    database.close()
