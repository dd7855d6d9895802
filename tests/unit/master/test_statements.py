"""Every statement of the SQL master can be written for each of the three databases."""

import asyncio
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from sqlalchemy import ClauseElement, event
from sqlalchemy.dialects.mysql.aiomysql import MySQLDialect_aiomysql
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from jobmaster.contracts.entries import AgentEntry, DefinitionEntry, Dispatch, Routes
from jobmaster.contracts.scheduling import ScheduleState
from jobmaster.contracts.values import Amendment, JobFilter, WorkerCard
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.move import mover_of
from jobmaster.master.sql.sqlite_engine import SqliteEngine
from jobmaster.master.sql.tables import Tables, build_tables
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster.model.states import JobState
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters.harness import dispatching, held, planning, record, run_of, sample, schedule

KINDS: list[Any] = [SQLiteDialect_pysqlite, PGDialect_asyncpg, MySQLDialect_aiomysql, MariaDBDialect]
STYLES = ["qmark", "numeric_dollar", "format", "format"]
DIALECTS: list[Dialect] = [kind(paramstyle=style) for kind, style in zip(KINDS, STYLES, strict=True)]
POSTGRES, MYSQL = DIALECTS[1:3]


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    given: Dialect = request.param
    return given


@pytest.fixture
def tables() -> Tables:
    return build_tables("jm_test_abcdef_")


def test_every_table_and_index_has_its_definition(dialect: Dialect, tables: Tables) -> None:
    texts = []
    for table in tables.metadata.sorted_tables:
        texts.append(str(CreateTable(table).compile(dialect=dialect)))
        texts += [str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes]
    for state in JobState:
        assert any(f"'{state}'" in text for text in texts), state
    assert max(len(name) for name in _names(tables)) <= 60


def test_the_longest_prefix_leaves_names_that_every_database_takes() -> None:
    assert max(len(name) for name in _names(build_tables("x" * 40))) <= 63


def test_ids_and_keys_are_compared_byte_by_byte(tables: Tables) -> None:
    postgres, mysql = (
        "".join(str(CreateTable(table).compile(dialect=dialect)) for table in tables.metadata.sorted_tables)
        for dialect in (POSTGRES, MYSQL)
    )
    assert "id UUID NOT NULL" in postgres
    assert 'schedule VARCHAR COLLATE "C" NOT NULL' in postgres
    assert "id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL" in mysql
    assert "`key` VARBINARY(255) NOT NULL" in mysql
    assert "JSON" not in postgres + mysql


def test_a_bulk_insert_has_as_many_placeholders_as_values(dialect: Dialect, tables: Tables) -> None:
    for options in ({}, {"guarded": True}, {"replacing": True}):
        bulk = BulkInsert(tables.history, JOB_FIELDS, key=("id",), **options)
        for size in (1, 8, 64):
            text = bulk.text(dialect, size)
            mark = {"sqlite": "?", "postgresql": "$"}.get(dialect.name, "%s")
            assert text.count(mark) == size * len(JOB_FIELDS)


def test_mysql_assigns_version_and_epoch_last(tables: Tables) -> None:
    # Its assignments see those to their left: with `version` first, the guard of the rest would be false.
    bulk = BulkInsert(tables.job, JOB_FIELDS, key=("id",), guarded=True)
    clause = bulk.conflict(MYSQL)
    positions = {name: clause.index(f" {name} = IF(") for name in JOB_FIELDS if name != "id"}
    assert sorted(positions, key=lambda name: positions[name])[-2:] == ["version", "epoch"]


def test_the_move_names_every_column_of_job_and_run(dialect: Dialect, tables: Tables) -> None:
    mover = mover_of(dialect, tables, "jm_test_outbox")
    texts = " ".join(str(value) for part in (mover, getattr(mover, "texts", mover)) for value in vars(part).values())
    assert all(f"o.job_{name}" in texts for name in JOB_FIELDS)
    assert all(f"o.run_{name}" in texts for name in RUN_FIELDS)
    with pytest.raises(ValueError, match="no table name"):
        mover_of(dialect, tables, "x; DROP TABLE y")


def test_no_part_of_the_master_hides_a_name_of_another() -> None:
    # The parts are joined by inheritance, and a private helper with a common name would silently win.
    seen: dict[str, type] = {}
    for part in SqlMaster.__mro__:
        for name, value in vars(part).items():
            if isinstance(value, FunctionType | cached_property) and not name.startswith("__"):
                assert name not in seen, f"{name}: {seen[name].__name__} hides {part.__name__}"
                seen[name] = part
    assert len(seen) > 40


def test_what_the_verbs_execute_compiles_for_every_database(executed: list[ClauseElement]) -> None:
    assert len(executed) > 60
    for dialect in DIALECTS[1:]:
        for statement in executed:
            if "json_each" not in str(statement):
                assert str(statement.compile(dialect=dialect))


@pytest.fixture
def executed(tmp_path: Path) -> list[ClauseElement]:
    """What SQLAlchemy was given while every verb ran once."""
    statements: list[ClauseElement] = []

    def note(_connection: object, statement: object, *_: object) -> None:
        if isinstance(statement, ClauseElement):
            statements.append(statement)

    class NotingEngine(SqliteEngine):
        def _core(self, raw: Any) -> Any:
            core = super()._core(raw)
            if not event.contains(core, "before_execute", note):
                event.listen(core, "before_execute", note)
            return core

    asyncio.run(_every_verb(SqlMaster(NotingEngine(f"sqlite:///{tmp_path}/all.db", ManualClock()), "test")))
    return statements


async def _every_verb(master: SqlMaster) -> None:
    await master.open()
    item, ended = held(), sample(JobState.FAILED)
    await master.insert([item, dispatching()])
    await master.due(10**18, 5)
    await master.dispatch([Dispatch(item.job.id, 1, "a", 5)])
    await master.hand_off(10**18, 5, Routes(agents={"a": 5}, draws=("a",)))
    await master.overdue("transport-1", 5)
    await master.dispatched([(item.job.id, 1)])
    await master.apply("a", [record(ended, run=run_of(ended))])
    await master.copy("a", [sample(JobState.RUNNING)])
    await master.sweep(5)
    await master.get([item.job.id])
    await master.runs(ended.id)
    for where in (JobFilter(), JobFilter(states=frozenset({JobState.FAILED, JobState.HELD}), lane="x", tag="y")):
        await master.page(where, None, 5)
        await master.page(where, item.job.id, 5)
    await master.counts(5)
    await master.cancel([item.job.id])
    await master.amend([Amendment(id=item.job.id, version=1, due_us=1)])
    await master.redrive([ended.id], 5, True)
    await master.delete([ended.id])
    await master.prune(5, 5)
    await master.quarantined(5)
    await master.define([DefinitionEntry(name="a")])
    await master.definitions()
    await master.enter_agent(AgentEntry(name="a", kind="b", fingerprint="c", incarnation="d"))
    await master.agents()
    card = WorkerCard(id="w", name="w", host="h", pid=1, lanes=(), handlers=(), slots=1, started_us=1)
    await master.beat("a", card)
    await master.workers()
    await master.leave("w")
    await master.save_schedule(schedule())
    await master.save_schedule(schedule())
    await master.schedules()
    await master.schedule("welcome")
    await master.soonest(["transport-1"])
    await master.plan(planning())
    await master.turn_schedule("welcome", ScheduleState.PAUSED)
    await master.turn_schedule("welcome", ScheduleState.ACTIVE)
    await master.plan(planning())
    await master.backfill("welcome", [5], planning())
    await master.occurrences("welcome", 10**17, 5)
    await master.tick_ran([("welcome", 5)])
    await master.sync_profiles({"nightly": [schedule("a", profile="nightly")]}, 5)
    await master.sync_profiles({"nightly": []}, 5, dry=True)
    await master.retire(["nightly"], 5)
    for node in ("one", "two"):
        await master.lead("planner", node, 5)
        await master.resign("planner", node)
    await master.close()


def _names(tables: Tables) -> Iterator[str]:
    for table in tables.metadata.sorted_tables:
        yield table.name
        yield from (str(index.name) for index in table.indexes)
        yield from (str(constraint.name) for constraint in table.constraints if constraint.name)
