"""Pages: jobs that match a filter, newest id first, from the live table and the history together.

Each page is made of walks, each down one index from the cursor, merged by id. What no index answers (lane, agent,
schedule, time, tag, metadata) is looked at row by row: then a walk reads at most `SCANNED` rows, says how far it came,
and the page may be short or even empty and still have a next one. So no filter, however rare its match, makes a call
read the whole history.
"""

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    Tuple,
    and_,
    exists,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
)

from jobmaster.contracts.filters import matches
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.master.rules import newer
from jobmaster.master.sql.dialects import contains
from jobmaster.master.sql.rows import job_of
from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import Job
from jobmaster.model.states import TERMINAL, JobState

SCANNED = 5_000
FIRST_ID = "00000000-0000-0000-0000-000000000000"
LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"

UNUSUAL = (JobState.FAILED, JobState.CANCELLED)
"""Terminal states rare enough to have an index of their own."""


class Walk(Struct, frozen=True):
    """One way through one table, down its ids."""

    table: Table
    group: list[tuple[ColumnElement[Any], str]]
    """What the columns of an index before the id must be; none for the primary key."""
    by_row: list[ColumnElement[bool]]
    """Conditions looked at row by row."""
    partial: list[ColumnElement[bool]] = []
    """The condition of that index, word for word, so that the database sees that it serves."""


def read_page(
    connection: Connection, tables: Tables, where: JobFilter, cursor: str | None, limit: int, scanned: int = SCANNED
) -> Page:
    """One page. Every match at or above the returned cursor, and below the given one, is in it."""
    found: dict[str, Job] = {}
    reached: str | None = None
    for walk in walks(tables, where):
        jobs, stopped = _walk(connection, walk, where, cursor, limit, scanned)
        for job in jobs:
            if newer(job, found.get(job.id)):
                found[job.id] = job
        if stopped is not None and (reached is None or stopped > reached):
            reached = stopped
    # Below the highest id at which a walk stopped, that walk may have missed some.
    ids = sorted((job_id for job_id in found if reached is None or job_id >= reached), reverse=True)
    jobs = [found[job_id] for job_id in ids[:limit]]
    return Page(jobs, jobs[-1].id if len(ids) > limit else reached)


def walks(tables: Tables, where: JobFilter) -> list[Walk]:
    """The walks that together find everything the filter lets through."""
    found = []
    live = sorted(where.states - TERMINAL) if where.states else []
    if live or not where.states:
        found += _live_walks(tables, where, live)
    ended = sorted(where.states & TERMINAL) if where.states else []
    if ended or not where.states:
        found += _history_walks(tables.history, where, ended)
    return found


def _live_walks(tables: Tables, where: JobFilter, states: list[JobState]) -> list[Walk]:
    job, history = tables.job, tables.history
    outlived = exists(
        select(history.c.id).where(
            history.c.id == job.c.id,
            or_(
                history.c.epoch > job.c.epoch,
                and_(history.c.epoch == job.c.epoch, history.c.version >= job.c.version),
            ),
        )
    )
    if where.lane is not None and states:
        rest = [*_by_row(job, where, "handler", "agent", "schedule"), not_(outlived)]
        return [Walk(job, [(job.c.lane, where.lane), (job.c.state, state.value)], rest) for state in states]
    rest = [*_by_row(job, where, "handler", "lane", "agent", "schedule"), not_(outlived)]
    if states:
        rest.append(_unindexed(job.c.state).in_([state.value for state in states]))
    return [Walk(job, [], rest)]


def _history_walks(history: Table, where: JobFilter, states: list[JobState]) -> list[Walk]:
    if states and all(state in UNUSUAL for state in states):
        rest = _by_row(history, where, "handler", "lane", "agent", "schedule")
        unusual = history.c.state != literal_column(f"'{JobState.SUCCEEDED.value}'")
        return [Walk(history, [(history.c.state, state.value)], rest, [unusual]) for state in states]
    rest = _by_row(history, where, "lane", "agent", "schedule")
    if states:
        rest.append(_unindexed(history.c.state).in_([state.value for state in states]))
    return [Walk(history, [] if where.handler is None else [(history.c.handler, where.handler)], rest)]


def _by_row(table: Table, where: JobFilter, *names: str) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        _unindexed(table.c[name]) == getattr(where, name) for name in names if getattr(where, name) is not None
    ]
    if where.since_us is not None:
        conditions.append(table.c.created_us >= where.since_us)
    # A label's text, as it is encoded, is in the row: the exact comparison comes later.
    texts = [] if where.tag is None else [where.tag]
    conditions += [contains(table.c.labels, msgspec.json.encode(text)) for text in [*texts, *where.metadata]]
    return conditions


def _unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column, so that no planner thinks of an index on it: it would read every match and sort them by id."""
    return func.nullif(column, "", type_=column.type)


def _walk(
    connection: Connection, walk: Walk, where: JobFilter, cursor: str | None, limit: int, scanned: int
) -> tuple[list[Job], str | None]:
    """Matches below the cursor, and the id at which the walk stopped (None: at the end)."""
    rows = connection.dialect.name == "postgresql"
    stopped: str | None = None
    if walk.by_row:
        stopped = connection.execute(bound_query(walk, cursor, scanned, rows)).scalar()
    found = [*connection.execute(rows_query(walk, cursor, stopped, limit, rows)).mappings()]
    jobs = [job for job in map(job_of, found) if matches(where, job)]
    return jobs, found[-1]["id"] if len(found) > limit else stopped


def bound_query(walk: Walk, cursor: str | None, scanned: int, rows: bool = False) -> Select[Any]:
    """The id of the last row that one call may look at, if there are more."""
    where, order = _within(walk, cursor, None, rows)
    return select(walk.table.c.id).where(*where).order_by(*order).offset(scanned - 1).limit(1)


def rows_query(walk: Walk, cursor: str | None, stopped: str | None, limit: int, rows: bool = False) -> Select[Any]:
    """The matching rows, down to where the walk has to stop; one more than the limit tells that there are more."""
    where, order = _within(walk, cursor, stopped, rows)
    return select(walk.table).where(*where, *walk.by_row).order_by(*order).limit(limit + 1)


def _within(
    walk: Walk, cursor: str | None, stopped: str | None, rows: bool
) -> tuple[list[ColumnElement[bool]], list[ColumnElement[Any]]]:
    """The conditions and the order of a walk. `rows`: whole rows are compared, which says the same, and leaves Postgres
    no other index to go by: with equalities it may walk the primary key instead, past every other group."""
    table_id = walk.table.c.id
    columns = [column for column, _ in walk.group]
    values = [value for _, value in walk.group]
    if not (rows and columns):
        where = [*walk.partial, *(column == value for column, value in walk.group)]
        where += [] if cursor is None else [table_id < cursor]
        where += [] if stopped is None else [table_id >= stopped]
        return where, [table_id.desc()]
    place = tuple_(*columns, table_id)

    def at(job_id: str) -> Tuple:
        given = zip([*columns, table_id], [*values, job_id], strict=True)
        return tuple_(*(literal(value, column.type) for column, value in given))

    below = place <= at(LAST_ID) if cursor is None else place < at(cursor)
    return [*walk.partial, below, place >= at(stopped or FIRST_ID)], [column.desc() for column in (*columns, table_id)]
