"""Questions about what is here: find, page, count. Run on read-only connections; nothing is changed."""

import sqlite3
from collections.abc import Sequence

from jobmaster.contracts.filters import labels_match
from jobmaster.contracts.values import InventoryItem, JobFilter, LaneStats, Page
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster_agents.sqlite import outbox
from jobmaster_agents.sqlite.store import Store, as_json
from jobmaster_agents.sqlite.tables import DELAYED, LEASED, PARKED, READY

_PAGE = 500


def find(store: Store, connection: sqlite3.Connection, ids: Sequence[str]) -> list[Job | None]:
    # One state for both questions: a job leaves its row and enters the outbox in one transaction.
    connection.execute("BEGIN")
    rows = store.by_id(connection, ids)
    missing = [job_id for job_id in ids if job_id not in rows]
    left = outbox.latest(store, connection, as_json(missing)) if missing else {}
    return [rows[job_id].job if job_id in rows else left.get(job_id) for job_id in ids]


def inventory(store: Store, connection: sqlite3.Connection, after_id: str, limit: int) -> list[InventoryItem]:
    found = connection.execute(
        f"SELECT id, epoch, version FROM {store.tables.job} WHERE id > ? ORDER BY id LIMIT ?",
        (after_id, limit),
    )
    return [InventoryItem(*values) for values in found]


def jobs(
    store: Store, connection: sqlite3.Connection, after_id: str, before_id: str, limit: int, leased_only: bool
) -> list[Job]:
    # Leased rows are few and have an index of their own; the others are paged by the primary key.
    leased = f"st = {LEASED} AND" if leased_only else ""
    rows = store.select(connection, f"WHERE {leased} id > ? AND id < ? ORDER BY id LIMIT ?", after_id, before_id, limit)
    return [row.job for row in rows]


def peek(store: Store, connection: sqlite3.Connection, where: JobFilter, cursor: str | None, limit: int) -> Page:
    conditions, values = _conditions(store, where)
    found: list[Job] = []
    while True:
        before = "TRUE" if cursor is None else "id < ?"
        rows = store.select(
            connection,
            f"WHERE {' AND '.join([before, *conditions])} ORDER BY id DESC LIMIT ?",
            *(() if cursor is None else (cursor,)),
            *values,
            max(limit + 1, _PAGE if where.tag or where.metadata else 0),
        )
        for row in rows:
            cursor = row.job.id
            if labels_match(where, row.job.labels):
                if len(found) == limit:
                    return Page(found, found[-1].id)
                found.append(row.job)
        if len(rows) <= limit or not rows:
            return Page(found, None)


def _conditions(store: Store, where: JobFilter) -> tuple[list[str], list[object]]:
    """What SQL can decide of a filter."""
    conditions: list[str] = []
    values: list[object] = []
    if where.states:
        allowed = [LEASED] if JobState.RUNNING in where.states else []
        allowed += [READY, DELAYED, PARKED] if JobState.QUEUED in where.states else []
        conditions.append(f"st IN ({', '.join(map(str, allowed))})")
    for column, value in (("handler", where.handler), ("lane", where.lane), ("schedule", where.schedule)):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if where.since_us is not None:
        conditions.append("created_us >= ?")
        values.append(where.since_us)
    if where.agent not in (None, store.agent):
        conditions.append("FALSE")
    return conditions, values


def stats(store: Store, connection: sqlite3.Connection) -> list[LaneStats]:
    t = store.tables
    # The first in line of each priority: due order and line order differ by little, and never by priority.
    oldest = (
        f"(SELECT min(due_us) FROM (SELECT (SELECT due_us FROM {t.job} INDEXED BY {t.job}_ready "
        f"WHERE st = {READY} AND lane = name AND priority = p.value ORDER BY seq LIMIT 1) AS due_us "
        "FROM json_each('[0, 1, 2, 3, 4]') AS p))"
    )
    found = connection.execute(
        f"SELECT name, ready, delayed, leased, parked, {oldest}, paused FROM {t.lane} "
        "WHERE paused OR ready OR delayed OR leased OR parked ORDER BY name"
    )
    return [
        LaneStats(
            lane=lane,
            ready=ready,
            delayed=delayed,
            leased=leased,
            parked=parked,
            oldest_ready_us=oldest_us,
            paused=bool(paused),
        )
        for lane, ready, delayed, leased, parked, oldest_us, paused in found
    ]
