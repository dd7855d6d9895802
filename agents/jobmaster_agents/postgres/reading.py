"""Questions about what is here: find, page, count. Nothing is changed."""

from collections.abc import Sequence

from jobmaster.contracts.filters import labels_match
from jobmaster.contracts.values import InventoryItem, JobFilter, LaneStats, Page
from jobmaster.model.job import Job
from jobmaster.model.priority import Priority
from jobmaster.model.states import JobState
from jobmaster_agents.postgres import outbox
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.sparing import Sparing
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import COUNTS, DELAYED, LEASED, PARKED, READY

_PAGE = 500


async def find(store: Store, connection: Connection, ids: Sequence[str]) -> list[Job | None]:
    # First the rows: a job enters the outbox in the transaction in which its row goes, so that what was missed as a row
    # is found as a record.
    rows = await store.by_id(connection, ids)
    missing = [job_id for job_id in ids if job_id not in rows]
    left = await outbox.latest(store, connection, missing) if missing else {}
    return [rows[job_id].job if job_id in rows else left.get(job_id) for job_id in ids]


async def inventory(store: Store, connection: Connection, after_id: str, limit: int) -> list[InventoryItem]:
    after = "WHERE j.id > $2" if after_id else ""
    found = await connection.fetch(
        f"SELECT id::text, epoch, version FROM {store.tables.job} AS j {after} ORDER BY j.id LIMIT $1",
        limit,
        *([after_id] if after_id else ()),
    )
    return [InventoryItem(*values) for values in found]


async def jobs(
    store: Store, connection: Connection, after_id: str, before_id: str, limit: int, leased_only: bool
) -> list[Job]:
    conditions = ["j.id < $2"]
    conditions += ["j.id > $3"] if after_id else []
    if leased_only:
        # They are few and have an index of their own, which the planner would not use for a page in order of id.
        leased = f"SELECT id FROM {store.tables.job} WHERE st = {LEASED}"
        conditions += [f"j.id = ANY (ARRAY({leased}))", f"(j.st + 0) = {LEASED}"]
    rows = await store.select(
        connection,
        f"WHERE {' AND '.join(conditions)} ORDER BY j.id LIMIT $1",
        limit,
        before_id,
        *([after_id] if after_id else ()),
    )
    return [row.job for row in rows]


async def peek(store: Store, connection: Connection, where: JobFilter, cursor: str | None, limit: int) -> Page:
    conditions, values = _conditions(store, where)
    found: list[Job] = []
    while True:
        rows = await store.select(
            connection,
            f"WHERE {' AND '.join(['($2::uuid IS NULL OR j.id < $2)', *conditions])} ORDER BY j.id DESC LIMIT $1",
            max(limit + 1, _PAGE if where.tag or where.metadata else 0),
            cursor,
            *values,
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
    """What SQL can decide of a filter; its parameters from the third on."""
    conditions: list[str] = []
    values: list[object] = []
    if where.states:
        allowed = [LEASED] if JobState.RUNNING in where.states else []
        allowed += [READY, DELAYED, PARKED] if JobState.QUEUED in where.states else []
        conditions.append(f"st = ANY ('{{{', '.join(map(str, allowed))}}}'::smallint[])")
    for column, value in (("handler", where.handler), ("lane", where.lane), ("schedule", where.schedule)):
        if value is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values) + 2}")
    if where.since_us is not None:
        values.append(where.since_us)
        conditions.append(f"created_us >= ${len(values) + 2}")
    if where.agent not in (None, store.agent):
        conditions.append("FALSE")
    return conditions, values


class Stats:
    """The verb `stats` on one store."""

    def __init__(self, store: Store) -> None:
        t = store.tables
        ranks = ", ".join(f"({rank:d}::smallint)" for rank in Priority)
        sums = ", ".join(f"sum({name})::bigint AS {name}" for name in COUNTS)
        columns = ", ".join(COUNTS)
        self._looks = Sparing()
        self._oldest: dict[str, int] = {}
        # The first in line of each priority: due order and line order differ by little, and never by priority.
        self._text = f"""
            SELECT name, {columns}, oldest.due_us, paused FROM (
                SELECT name, bool_or(paused) AS paused, {sums} FROM (
                    SELECT name, paused, {columns} FROM {t.lane}
                    UNION ALL SELECT lane, false, {columns} FROM {t.count}
                ) AS either GROUP BY name
            ) AS lane CROSS JOIN LATERAL (
                SELECT min(head.due_us) AS due_us FROM (VALUES {ranks}) AS p (rank) CROSS JOIN LATERAL (
                    SELECT due_us FROM {t.job} WHERE st = {READY} AND lane = lane.name AND priority = p.rank
                    ORDER BY seq LIMIT 1
                ) AS head WHERE $1
            ) AS oldest
            WHERE paused OR ready <> 0 OR delayed <> 0 OR leased <> 0 OR parked <> 0 ORDER BY name"""

    async def ask(self, connection: Connection) -> list[LaneStats]:
        """Counts as they are; how old the oldest is, as it was when last looked for."""
        if self._looks.due():
            with self._looks.look():
                found = await connection.fetch(self._text, True)
            self._oldest = {values[0]: values[5] for values in found if values[5] is not None}
        else:
            found = await connection.fetch(self._text, False)
        return [
            LaneStats(
                lane=lane,
                ready=ready,
                delayed=delayed,
                leased=leased,
                parked=parked,
                oldest_ready_us=self._oldest.get(lane) if ready > 0 else None,
                paused=paused,
            )
            for lane, ready, delayed, leased, parked, _, paused in found
        ]
