"""Questions about what is here: find, page, count. Nothing is changed."""

from collections.abc import Sequence

from jobmaster.contracts.filters import labels_match
from jobmaster.contracts.values import InventoryItem, JobFilter, LaneStats, Page
from jobmaster.model.job import Job
from jobmaster.model.priority import Priority
from jobmaster.model.states import JobState
from jobmaster_agents.mysql import outbox
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import ALL_LANES, COUNTS, DELAYED, LEASED, PARKED, READY

_PAGE = 500
_NEVER = 2**63 - 1


async def find(store: Store, session: Session, ids: Sequence[str]) -> list[Job | None]:
    # First the rows: a job enters the outbox in the transaction in which its row goes, so that what was missed as a row
    # is found as a record.
    rows = await store.by_id(session, ids)
    missing = [job_id for job_id in ids if job_id not in rows]
    left = await outbox.latest(store, session, missing) if missing else {}
    return [rows[job_id].job if job_id in rows else left.get(job_id) for job_id in ids]


async def inventory(store: Store, session: Session, after_id: str, limit: int) -> list[InventoryItem]:
    found = await session.fetch(
        f"SELECT id, epoch, version FROM {store.tables.job} FORCE INDEX (PRIMARY) WHERE id > ? ORDER BY id LIMIT ?",
        after_id,
        limit,
    )
    return [InventoryItem(*values) for values in found]


async def jobs(
    store: Store, session: Session, after_id: str, before_id: str, limit: int, leased_only: bool
) -> list[Job]:
    # Leased ones are few, and found by an index that begins with them; all others in the order of the ids.
    index, leased = (f"{store.tables.prefix}job_line", f"j.st = {LEASED} AND") if leased_only else ("PRIMARY", "")
    rows = await store.select(
        session,
        f"FORCE INDEX ({index}) WHERE {leased} j.id > ? AND j.id < ? ORDER BY j.id LIMIT ?",
        after_id,
        before_id,
        limit,
    )
    return [row.job for row in rows]


async def peek(store: Store, session: Session, where: JobFilter, cursor: str | None, limit: int) -> Page:
    conditions, values = _conditions(store, where)
    found: list[Job] = []
    while True:
        # An id is text here, and no id comes behind this one.
        rows = await store.select(
            session,
            f"FORCE INDEX (PRIMARY) WHERE {' AND '.join(['j.id < ?', *conditions])} ORDER BY j.id DESC LIMIT ?",
            "~" if cursor is None else cursor,
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
    """What SQL can decide of a filter, and its values."""
    conditions: list[str] = []
    values: list[object] = []
    if where.states:
        allowed = [LEASED] if JobState.RUNNING in where.states else []
        allowed += [READY, DELAYED, PARKED] if JobState.QUEUED in where.states else []
        conditions.append("j.st IN ?")
        values.append(allowed)
    schedule = None if where.schedule is None else where.schedule.encode()
    for column, value in (("handler", where.handler), ("lane", where.lane), ("schedule", schedule)):
        if value is not None:
            conditions.append(f"j.{column} = ?")
            values.append(value)
    if where.since_us is not None:
        conditions.append("j.created_us >= ?")
        values.append(where.since_us)
    if where.agent not in (None, store.agent):
        conditions.append("FALSE")
    return conditions, values


async def stats(store: Store, session: Session) -> list[LaneStats]:
    t = store.tables
    columns = ", ".join(COUNTS)
    sums = ", ".join(f"SUM({name}) AS {name}" for name in COUNTS)
    # The first in line of each priority: due order and line order differ by little, and never by priority.
    heads = ", ".join(
        f"COALESCE((SELECT j.due_us FROM {t.job} AS j FORCE INDEX ({t.prefix}job_line) WHERE j.st = {READY} "
        f"AND j.line = lane.name AND j.line_rank = {rank:d} ORDER BY j.seq LIMIT 1), {_NEVER})"
        for rank in Priority
    )
    found = await session.fetch(f"""
        SELECT name, n_ready, n_delayed, COALESCE(held.jobs, 0), n_parked, LEAST({heads}), paused FROM (
            SELECT name, MAX(paused) AS paused, {sums} FROM (
                SELECT name, paused, {columns} FROM {t.lane}
                UNION ALL SELECT lane, FALSE, {columns} FROM {t.count}
            ) AS either WHERE name <> '{ALL_LANES}' GROUP BY name
        ) AS lane LEFT JOIN (
            SELECT line, COUNT(*) AS jobs FROM {t.job} FORCE INDEX ({t.prefix}job_line)
            WHERE st = {LEASED} GROUP BY line
        ) AS held ON held.line = lane.name
        WHERE paused OR n_ready <> 0 OR n_delayed <> 0 OR n_parked <> 0 OR held.jobs IS NOT NULL ORDER BY name""")
    return [
        LaneStats(
            lane=lane,
            ready=int(ready),
            delayed=int(delayed),
            leased=int(leased),
            parked=int(parked),
            oldest_ready_us=None if oldest_us == _NEVER else oldest_us,
            paused=bool(paused),
        )
        for lane, ready, delayed, leased, parked, oldest_us, paused in found
    ]
