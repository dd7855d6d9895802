"""The outbox and the tombstones: what the master has yet to learn, and what must not come back."""

from collections.abc import Sequence
from typing import Any

import msgspec

from jobmaster.contracts.values import PUT_WINDOW_US, OutboxRecord, RecordKind, Revoke
from jobmaster.model.job import JOB_FIELDS, Job
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.rows import RECORD_JOB, RECORD_RUN, job_of, run_of
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import NOW_US, literal

TOMBSTONE_LIFE_US = 2 * PUT_WINDOW_US


async def changes(store: Store, connection: Connection, limit: int, older_than_us: int) -> list[OutboxRecord]:
    """The oldest records that are old enough. A number may be drawn long before it is committed, so what comes later
    may have a lower one: records are confirmed one by one, never up to a number."""
    found = await connection.fetch(
        f"SELECT seq, kind, at_us, revoked, {RECORD_JOB}, {RECORD_RUN} FROM {store.tables.outbox} "
        f"WHERE at_us <= (SELECT {NOW_US}) - $2::bigint ORDER BY seq LIMIT $1",
        limit,
        older_than_us,
    )
    return [_record(tuple(values)) for values in found]


async def latest(store: Store, connection: Connection, ids: Sequence[str]) -> dict[str, Job]:
    """Jobs that left, as their last record tells while it is unconfirmed."""
    t = store.tables
    found = await connection.fetch(
        f"SELECT {RECORD_JOB} FROM {t.tombstone} AS stone JOIN {t.outbox} AS record USING (seq) "
        "WHERE stone.id = ANY ($1::uuid[]) AND record.job_id IS NOT NULL",
        ids,
    )
    return {job.id: job for job in (job_of(tuple(values)) for values in found)}


async def confirm(store: Store, seqs: Sequence[int]) -> None:
    """The index is searched in order of seq, so that two who confirm the same can't wait for each other."""
    text = f"DELETE FROM {store.tables.outbox} WHERE seq = ANY ($1::text::bigint[])"
    await store.database.fetch(text, literal(sorted(seqs)))


async def prune(store: Store, connection: Connection, limit: int) -> int:
    """Forget tombstones that nobody can ask about any more; how many. Only the oldest are looked at: they are in order
    of time, and the oldest that must stay keeps those behind it, too."""
    t = store.tables
    pruned = await connection.execute(
        f"""
        DELETE FROM {t.tombstone} WHERE id = ANY (ARRAY(
            SELECT stone.id FROM (SELECT id, seq, at_us FROM {t.tombstone} ORDER BY seq LIMIT $1) AS stone
            WHERE stone.at_us < (SELECT {NOW_US}) - {TOMBSTONE_LIFE_US}
                AND NOT EXISTS (SELECT 1 FROM {t.outbox} AS record WHERE record.seq = stone.seq)))
            AND at_us < (SELECT {NOW_US}) - {TOMBSTONE_LIFE_US}""",
        limit,
    )
    return int(pruned.rpartition(" ")[2])


async def high_water(store: Store, connection: Connection) -> int:
    """The highest sequence number ever given out."""
    found = await connection.fetchval(
        f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {store.tables.outbox_seq}"
    )
    return int(found)


async def any_ended(store: Store, connection: Connection, ids: frozenset[str]) -> bool:
    """Whether one of these has come to its end here."""
    t = store.tables
    found = await connection.fetchval(
        f"SELECT EXISTS (SELECT 1 FROM {t.tombstone} AS stone WHERE stone.id = ANY ($1::uuid[]) AND NOT stone.moved "
        f"AND NOT EXISTS (SELECT 1 FROM {t.job} AS j WHERE j.id = stone.id))",
        list(ids),
    )
    return bool(found)


def _record(found: Sequence[Any]) -> OutboxRecord:
    seq, kind, at_us, revoked, *rest = found
    job, run = rest[: len(JOB_FIELDS)], rest[len(JOB_FIELDS) :]
    return OutboxRecord(
        seq=seq,
        kind=RecordKind(kind),
        at_us=at_us,
        job=None if job[0] is None else job_of(job),
        run=None if run[0] is None else run_of(run),
        revoked=None if revoked is None else msgspec.json.decode(revoked, type=Revoke),
    )
