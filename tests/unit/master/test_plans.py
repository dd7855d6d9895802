"""How SQLite answers the master's queries at 200,000 rows: down an index, in its order, never by a sort of it all."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from jobmaster.contracts.values import JobFilter
from jobmaster.master.rules import ON_AGENTS
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.move_texts import RangeMover
from jobmaster.master.sql.pages import bound_query, rows_query, walks
from jobmaster.master.sql.tables import Tables
from jobmaster.model.states import JobState
from tests.outbox_table import OUTBOX, create_outbox
from tests.unit.master.conftest import sqlite_master

ROWS = 100_000
COLUMNS = (
    "id, handler, lane, priority, state, reason, epoch, claim_seq, version, agent, created_us, original_due_us, "
    "due_us, finished_us, attempts, snoozes, interrupts, crash_count, suspect, effects, data, policy"
)
DIALECT = SQLiteDialect_pysqlite(paramstyle="qmark")
CURSOR = "00008000-0000-7000-8000-000000000000"


class Plans:
    """A filled database that can be asked how it would go about something."""

    def __init__(self, master: SqlMaster, connection: sqlite3.Connection) -> None:
        self.master = master
        self.tables: Tables = master._tables
        self._connection = connection

    def of(self, statement: Any, *values: Any) -> str:
        if not isinstance(statement, str):
            compiled = statement.compile(dialect=DIALECT, compile_kwargs={"render_postcompile": True})
            statement, values = str(compiled), tuple(compiled.params[name] for name in _order(compiled))
        steps = self._connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        prefix = self.tables.prefix
        return " | ".join(step[3].replace(prefix, "").replace("sqlite_autoindex", "pk") for step in steps)


def _order(compiled: Any) -> list[str]:
    return compiled.positiontup or []


@pytest.fixture(scope="module", params=["without statistics", "analyzed"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Plans]:
    path = tmp_path_factory.mktemp("plans") / "master.db"
    shutil.copyfile(migrated, path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    master = sqlite_master(path)
    _fill(connection, master._tables)
    create_outbox(connection)
    if request.param == "analyzed":
        connection.execute("ANALYZE")
    yield Plans(master, connection)
    connection.close()


def _fill(connection: sqlite3.Connection, tables: Tables) -> None:
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS - 1})"
    rest = "1, 1, 3, 'a', i, i, i"
    tail = "0, 0, 0, 0, 0, 0, x'7b7d', x'7b7d'"
    ended = "CASE i % 100 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'succeeded' END"
    live = "CASE i % 100 WHEN 0 THEN 'dispatching' WHEN 1 THEN 'queued' ELSE 'held' END"
    connection.execute("BEGIN")
    connection.execute(
        f"{numbers} INSERT INTO {tables.history.name} ({COLUMNS}) "
        f"SELECT printf('%08x-0000-7000-8000-000000000000', i), 'h' || (i % 5), 'lane' || (i % 3), 2, {ended}, "
        f"CASE i % 100 WHEN 0 THEN 'exhausted' END, {rest}, i, {tail} FROM n"
    )
    connection.execute(
        f"{numbers} INSERT INTO {tables.job.name} ({COLUMNS}, dispatch_until_us) "
        f"SELECT printf('%08x-0001-7000-8000-000000000000', i), 'h' || (i % 5), 'lane' || (i % 3), 2, {live}, NULL, "
        f"{rest}, NULL, {tail}, CASE i % 100 WHEN 0 THEN i END FROM n"
    )
    connection.execute("COMMIT")


def test_due_jobs_come_in_the_order_of_their_index(plans: Plans) -> None:
    assert plans.of(plans.master._due_query) == "SEARCH job USING INDEX job_due (state=? AND due_us<?)"


def test_overdue_hand_offs_are_found_by_agent_and_time(plans: Plans) -> None:
    plan = plans.of(plans.master._overdue_query)
    assert plan == "SEARCH job USING INDEX job_dispatch (agent=? AND dispatch_until_us<?)"


def test_due_schedules_are_found_by_time(plans: Plans) -> None:
    for query in (plans.master._due_for_look, plans.master._soonest_query):
        text = str(query.compile(dialect=DIALECT)).replace("(__[POSTCOMPILE_agents])", "('a')")
        plan = plans.of(text.replace("?", "5"))
        assert plan.startswith("SEARCH schedule USING INDEX schedule_look (status=?")
        assert "TEMP B-TREE" not in plan


def test_counts_skip_from_group_to_group(plans: Plans) -> None:
    step = plans.of(plans.master._next_lane(JobState.SUCCEEDED, "lane0"))
    assert step == "SEARCH history USING COVERING INDEX history_group (state=? AND lane>?)"
    count = plans.of(plans.master._group_count("sqlite", plans.tables.history, JobState.SUCCEEDED, "lane0", 100))
    assert "SEARCH history USING COVERING INDEX history_group (state=? AND lane=?)" in count


def test_pruning_goes_along_the_time_of_a_group(plans: Plans) -> None:
    plan = plans.of(plans.master._old_query(JobState.SUCCEEDED, "lane0", 500, 10))
    assert plan == "SEARCH history USING INDEX history_group (state=? AND lane=? AND finished_us<?)"


def test_sweeping_looks_ids_up_in_the_history(plans: Plans) -> None:
    plan = plans.of(plans.master._rows.buried(ON_AGENTS, 100))
    assert plan.endswith("SEARCH history USING INDEX pk_history_1 (id=?)")
    assert "TEMP B-TREE" not in plan


def _words(where: JobFilter) -> str:
    return " ".join([*sorted(where.states), *filter(None, (where.handler, where.lane))]) or "all"


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (JobFilter(), "pk_history_1"),
        (JobFilter(lane="lane1"), "pk_history_1"),
        (JobFilter(tag="vip", agent="a", schedule="s", since_us=5), "pk_history_1"),
        (JobFilter(handler="h1"), "history_handler"),
        (JobFilter(handler="h1", states=frozenset({JobState.SUCCEEDED}), lane="lane1"), "history_handler"),
        (JobFilter(states=frozenset({JobState.SUCCEEDED})), "pk_history_1"),
        (JobFilter(states=frozenset({JobState.FAILED})), "history_unusual"),
        (JobFilter(states=frozenset({JobState.FAILED, JobState.CANCELLED}), lane="lane1"), "history_unusual"),
        (JobFilter(states=frozenset({JobState.QUEUED})), "pk_job_1"),
        (JobFilter(states=frozenset({JobState.HELD, JobState.QUEUED}), lane="lane1"), "job_group"),
        (JobFilter(states=frozenset({JobState.HELD}), handler="h1"), "pk_job_1"),
    ],
    ids=lambda value: value if isinstance(value, str) else _words(value),
)
@pytest.mark.parametrize("cursor", [None, CURSOR])
def test_a_page_walks_one_index_in_id_order(plans: Plans, where: JobFilter, cursor: str | None, index: str) -> None:
    for walk in walks(plans.tables, where):
        bottom = CURSOR if walk.by_row else None
        for query in (bound_query(walk, cursor, 5_000), rows_query(walk, cursor, bottom, 50)):
            plan = plans.of(query)
            assert "TEMP B-TREE" not in plan
            if walk.table is plans.tables.history or where.states:
                assert f" {index} " in f"{plan} ".replace("(", " ")


def test_ids_are_searched_and_not_scanned_for(plans: Plans) -> None:
    job = plans.tables.job
    query = select(job).where(job.c.id.in_(["a", "b"]))
    assert "SEARCH job USING INDEX pk_job_1 (id=?)" in plans.of(query)


def test_a_move_touches_nothing_but_its_batch(plans: Plans) -> None:
    mover = RangeMover(plans.tables, OUTBOX, DIALECT)
    batch = "SEARCH o USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
    assert plans.of(mover.history, 5, 9).split(" | ")[0] == batch
    assert "SEARCH j USING INDEX pk_job_1 (id=?)" in plans.of(mover.history, 5, 9)
    assert plans.of(mover.runs, 5, 9) == batch
    bury = plans.of(mover.bury, 5, 9)
    assert "SEARCH job USING INDEX pk_job_1 (id=?)" in bury
    assert batch in bury
    assert "SCAN" not in plans.of(mover.clear, 5, 9) + plans.of(mover.texts.effects, 5) + bury
    assert "TEMP B-TREE" not in plans.of(mover.texts.bounds, 5)
