"""The schema: what the steps make is what the code expects, and a crash in the middle is completed."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import jobmaster.master.migrations
from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import JobFilter
from jobmaster.master.migrations import HEAD
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.tables import build_tables
from jobmaster.model.errors import SchemaOutdated
from jobmaster.testing.masters.harness import held
from tests.unit.master.conftest import sqlite_master

PREFIX = table_prefix("test")

OPEN = """
import asyncio, sys
from jobmaster.master import open_master
from jobmaster.testing.clock import ManualClock

async def main():
    master = open_master(sys.argv[1], cluster=sys.argv[2], clock=ManualClock())
    await master.open()
    await master.close()
    print("alembic" in sys.modules)

asyncio.run(main())
"""


def opened_by_a_process(path: Path, cluster: str = "test", failpoints: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"JOBMASTER_FAILPOINTS": failpoints} if failpoints else {})
    command = [sys.executable, "-c", OPEN, f"sqlite:///{path}", cluster]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


def test_the_steps_lead_to_the_tables_of_the_code(migrated: Path) -> None:
    tables = build_tables(PREFIX)
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": f"{PREFIX}revision"})
        differences = compare_metadata(context, tables.metadata)
    engine.dispose()
    assert differences == []


def test_the_steps_write_the_very_definitions_of_the_code(migrated: Path) -> None:
    # Constraints and partial indexes are beyond what Alembic compares.
    fresh = create_engine("sqlite://")
    build_tables(PREFIX).metadata.create_all(fresh)
    with fresh.connect() as connection:
        expected = _definitions(connection.connection.driver_connection)
    fresh.dispose()
    stepwise = sqlite3.connect(migrated)
    found = _definitions(stepwise)
    stepwise.close()
    del found[f"{PREFIX}revision"]
    assert found == expected
    assert len(found) > 15


def _definitions(connection: object) -> dict[str, str]:
    assert isinstance(connection, sqlite3.Connection)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: re.sub(r"\s+", " ", sql).replace("IF NOT EXISTS ", "") for name, sql in rows}


def test_the_newest_step_is_the_one_that_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(jobmaster.master.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.asyncio
async def test_without_leave_to_migrate_an_old_schema_is_named_with_its_remedy(tmp_path: Path) -> None:
    master = sqlite_master(tmp_path / "new.db", migrate=False)
    with pytest.raises(
        SchemaOutdated, match=rf"new\.db: schema version is None, expected '{HEAD}'; run `jobmaster migrate`"
    ):
        await master.open()
    await sqlite_master(tmp_path / "new.db").open()
    await master.open()
    await master.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("migrate", [True, False])
async def test_the_schema_of_a_later_release_is_refused_and_left_alone(master: SqlMaster, migrate: bool) -> None:
    await master._write(lambda connection: connection.exec_driver_sql(f"UPDATE {PREFIX}revision SET version_num = '9'"))
    later = sqlite_master(Path(master._engine.store), migrate=migrate)
    with pytest.raises(SchemaOutdated, match=r"schema version is '9'.*later release"):
        await later.open()
    assert (await master.page(JobFilter(), None, 1)).jobs == []


@pytest.mark.asyncio
async def test_two_clusters_in_one_database_do_not_see_each_other(tmp_path: Path) -> None:
    one, two = (sqlite_master(tmp_path / "both.db", cluster=name) for name in ("shop", "shop-2"))
    await one.open()
    await two.open()
    await one.insert([held()])
    assert (await two.page(JobFilter(), None, 1)).jobs == []
    assert (await one.probe()).incarnation != (await two.probe()).incarnation
    await one.close()
    await two.close()


@pytest.mark.asyncio
async def test_many_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    masters = [sqlite_master(tmp_path / "new.db") for _ in range(5)]
    reports = await asyncio.gather(*(master.open() for master in masters))
    assert len({report.incarnation for report in reports}) == 1
    for master in masters:
        await master.close()


def test_two_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path}/new.db", "test"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=50) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers


def test_a_crash_during_a_step_is_completed_by_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert opened_by_a_process(path, failpoints="migration.step:crash").returncode == 137
    again = opened_by_a_process(path)
    assert again.returncode == 0, again.stderr
    test_the_steps_lead_to_the_tables_of_the_code(path)


def test_an_up_to_date_start_loads_no_alembic(tmp_path: Path, migrated: Path) -> None:
    loaded = opened_by_a_process(migrated)
    assert loaded.stdout == "False\n", loaded.stderr
    assert opened_by_a_process(tmp_path / "new.db").stdout == "True\n"
