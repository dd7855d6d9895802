"""park: jobs whose handler nobody knows are set aside, and put back once somebody does."""

from collections.abc import Sequence
from functools import lru_cache

from jobmaster.contracts import decisions
from jobmaster.contracts.values import ParkReport
from jobmaster.model.priority import Priority
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.ledger import Ledger
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import CLOCK, PARKED, READY, Tables

LOOKED_AT = 10_000
"""Jobs at the head of each line that are looked at for handlers nobody knows. Only there do they cost anything, as
every claim passes over them; what is behind gets its turn when it is near."""


class _Statements:
    """The texts, made once for a store."""

    def __init__(self, t: Tables) -> None:
        ranks = ", ".join(f"({rank:d}::smallint)" for rank in Priority)
        # One look at the index gives the next lane: there may be a million jobs in each.
        self.unknown_ready = f"""
            WITH RECURSIVE lanes AS (
                (SELECT lane FROM {t.job} WHERE st = {READY} ORDER BY lane LIMIT 1)
                UNION ALL
                SELECT (SELECT j.lane FROM {t.job} AS j WHERE j.st = {READY} AND j.lane > lanes.lane
                    ORDER BY j.lane LIMIT 1)
                FROM lanes WHERE lanes.lane IS NOT NULL
            )
            SELECT head.id FROM lanes CROSS JOIN (VALUES {ranks}) AS p (rank) CROSS JOIN LATERAL (
                SELECT id, handler FROM {t.job}
                WHERE st = {READY} AND lane = lanes.lane AND priority = p.rank ORDER BY seq LIMIT {LOOKED_AT}
            ) AS head
            WHERE head.handler <> ALL ($1::text[]) LIMIT $2"""
        self.park = f"""
            WITH parked AS (
                UPDATE {t.job} SET st = {PARKED} WHERE (st + 0) = {READY} AND id = ANY (ARRAY(
                    SELECT id FROM {t.job} WHERE id = ANY ($1::uuid[]) AND (st + 0) = {READY}
                        AND handler <> ALL ($2::text[])
                    ORDER BY id FOR UPDATE SKIP LOCKED))
                RETURNING lane, handler
            ), counted AS (
                INSERT INTO {t.count} (lane, ready, parked) SELECT lane, -count(*), count(*) FROM parked GROUP BY lane
            )
            SELECT handler, count(*) FROM parked GROUP BY handler"""
        self.unpark = f"""
            WITH ready AS (
                UPDATE {t.job} SET st = {READY} WHERE (st + 0) = {PARKED} AND id = ANY (ARRAY(
                    SELECT id FROM {t.job} WHERE st = {PARKED} AND handler = ANY ($1::text[])
                    LIMIT $2 FOR UPDATE SKIP LOCKED))
                RETURNING lane
            ), summed AS MATERIALIZED (
                SELECT lane, count(*) AS jobs FROM ready GROUP BY lane
            ), counted AS (
                INSERT INTO {t.count} (lane, ready, parked) SELECT lane, jobs, -jobs FROM summed
            )
            SELECT lane, jobs FROM summed"""
        # The policy need not be readable, and then it says nothing.
        self.given_up = f"""
            WITH {CLOCK}
            SELECT id::text FROM {t.job} WHERE st = {PARKED} AND handler <> ALL ($1::text[])
                AND due_us + substring(encode(policy, 'escape') FROM '"unroutable_after_us": ?([0-9]{{1,18}})')::bigint
                    <= (SELECT now_us FROM clock)
            LIMIT $2"""


@lru_cache(maxsize=64)
def _statements(tables: Tables) -> _Statements:
    return _Statements(tables)


async def unknown_ready(store: Store, connection: Connection, known: frozenset[str], limit: int) -> list[str]:
    """Ready jobs near the head of a line whose handler is not known."""
    found = await connection.fetch(_statements(store.tables).unknown_ready, sorted(known), limit)
    return [job_id for (job_id,) in found]


async def park(
    store: Store, connection: Connection, known: frozenset[str], limit: int, candidates: Sequence[str]
) -> tuple[ParkReport, set[str]]:
    """The report, and the lanes that have ready jobs again. `candidates` are from `unknown_ready`."""
    statements, names = _statements(store.tables), sorted(known)
    parked = await connection.fetch(statements.park, candidates, names) if candidates else []
    unparked = await connection.fetch(statements.unpark, names, limit) if names else []
    ready = sum(jobs for _, jobs in unparked)
    report = ParkReport(
        parked=dict(tuple(row) for row in parked),
        unparked=ready,
        more=len(candidates) == limit or ready == limit,
    )
    return report, {lane for lane, _ in unparked}


async def given_up(store: Store, connection: Connection, known: frozenset[str], limit: int) -> list[str]:
    """Parked jobs that have waited for a handler as long as they may."""
    found = await connection.fetch(_statements(store.tables).given_up, sorted(known), limit)
    return [job_id for (job_id,) in found]


async def give_up(store: Store, connection: Connection, known: frozenset[str], candidates: Sequence[str]) -> Ledger:
    """End those of the candidates, which are from `given_up`, that are still parked."""
    ledger = Ledger(store, connection, await store.now_us(connection))
    rows = await store.locked(connection, candidates, f"AND (st + 0) = {PARKED}")
    for row in rows.values():
        ended = None if row.job.handler in known else decisions.unroutable(row.job, ledger.now_us)
        if ended is not None:
            ledger.end(row, ended, None, row.last_token, row.last_digest)
    await ledger.flush()
    return ledger
