"""Waiting jobs: promote, amend, withdraw, purge."""

from collections.abc import Sequence
from functools import lru_cache

from jobmaster.contracts import decisions
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    PromoteReport,
    RevokeKind,
    StoreMode,
)
from jobmaster.ledger import distinct
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.ledger import Ledger
from jobmaster_agents.postgres.revoking import take
from jobmaster_agents.postgres.rows import Row
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import CLOCK, DELAYED, LEASED, READY, Tables, new_places


class _Statements:
    """The texts, made once for a store."""

    def __init__(self, t: Tables) -> None:
        # The chosen ids go through an array: joined as they are, the planner guesses a tenth of the table for a LIMIT
        # that it can't see, and reads the table whole. As it does for a join with a table it takes for empty.
        self.promote = f"""
            WITH {CLOCK}, due AS MATERIALIZED (
                SELECT id FROM {t.job} WHERE st = {DELAYED} AND due_us <= (SELECT now_us FROM clock)
                ORDER BY due_us, seq LIMIT $1 FOR UPDATE SKIP LOCKED
            ), listed AS MATERIALIZED (
                SELECT array_agg(id) AS ids FROM due
            ), place AS MATERIALIZED (
                SELECT {new_places(t)} AS first WHERE EXISTS (SELECT 1 FROM due)
            ), promoted AS (
                UPDATE {t.job} AS j SET st = {READY}, seq = place.first + n.at
                FROM place, listed, unnest(listed.ids) WITH ORDINALITY AS n (id, at)
                WHERE j.id = n.id AND j.id = ANY (ARRAY(SELECT id FROM due)) AND (j.st + 0) = {DELAYED} RETURNING j.lane
            ), summed AS MATERIALIZED (
                SELECT lane, count(*) AS jobs FROM promoted GROUP BY lane
            ), counted AS (
                INSERT INTO {t.count} (lane, ready, delayed) SELECT lane, jobs, -jobs FROM summed
            )
            SELECT lane, jobs FROM summed"""
        self.next_due = f"""
            SELECT least((SELECT min(due_us) FROM {t.job} WHERE st = {DELAYED}),
                (SELECT min(expires_us) FROM {t.job} WHERE expires_us IS NOT NULL AND st <> {LEASED}))"""


@lru_cache(maxsize=64)
def _statements(tables: Tables) -> _Statements:
    return _Statements(tables)


async def promote(store: Store, connection: Connection, limit: int) -> tuple[PromoteReport, Ledger]:
    """The report, and what was made ready or ended."""
    statements = _statements(store.tables)
    meta = await store.meta(connection)
    ledger = Ledger(store, connection, meta.now_us)
    if meta.mode is StoreMode.QUARANTINED:
        return PromoteReport(), ledger
    overdue = await store.select(
        connection,
        f"WHERE expires_us IS NOT NULL AND st <> {LEASED} AND expires_us <= $1 ORDER BY expires_us LIMIT $2 "
        "FOR UPDATE SKIP LOCKED",
        ledger.now_us,
        limit,
    )
    for row in overdue:
        ledger.expire(row)
    await ledger.flush()
    promoted = await connection.fetch(statements.promote, limit)
    ready = sum(jobs for _, jobs in promoted)
    ledger.ready |= {lane for lane, _ in promoted}
    report = PromoteReport(
        ready=ready,
        expired=len(overdue),
        next_due_us=await connection.fetchval(statements.next_due),
        more=ready == limit or len(overdue) == limit,
    )
    return report, ledger


async def amend(store: Store, connection: Connection, items: Sequence[Amendment]) -> tuple[list[AmendAnswer], set[str]]:
    """The answers, and the lanes that have jobs made ready."""
    answers = [AmendAnswer.UNKNOWN] * len(items)
    ready: set[str] = set()
    for run in distinct(enumerate(items)):
        rows = await store.locked(connection, [item.id for _, item in run])
        ledger = Ledger(store, connection, await store.now_us(connection))
        for at, item in run:
            if item.id in rows:
                answers[at] = _amend(ledger, rows[item.id], item)
        await ledger.flush()
        ready |= ledger.ready
    return answers, ready


def _amend(ledger: Ledger, row: Row, item: Amendment) -> AmendAnswer:
    if row.st == LEASED:
        return AmendAnswer.RUNNING
    if row.job.version != item.version:
        return AmendAnswer.CONFLICT
    job = decisions.amended(row.job, item)
    if item.data is not None and row.first_data is None:
        row.first_data = row.job.data
    if row.st != DELAYED and decisions.is_due(job, ledger.now_us):
        ledger.change(row, job, row.st)
    else:
        ledger.shelve(row, job)
    return AmendAnswer.CHANGED


async def take_waiting(
    store: Store, connection: Connection, lane: str | None, kind: RevokeKind, limit: int, after_id: str = ""
) -> list[str]:
    """Revoke up to `limit` waiting jobs of a lane (None: all), in id order; their ids."""
    ledger = Ledger(store, connection, await store.now_us(connection))
    rows = await store.select(
        connection,
        f"WHERE st <> {LEASED} AND ($1::uuid IS NULL OR j.id > $1) AND ($2::text IS NULL OR lane = $2) "
        "ORDER BY j.id LIMIT $3 FOR UPDATE",
        after_id or None,
        lane,
        limit,
    )
    for row in rows:
        take(ledger, row, kind)
    await ledger.flush()
    return [row.job.id for row in rows]
