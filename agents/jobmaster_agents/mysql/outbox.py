"""The outbox and the tombstones: what the master has yet to learn, and what must not come back."""

from collections.abc import Sequence
from typing import Any

import msgspec

from jobmaster.contracts.values import PUT_WINDOW_US, OutboxRecord, RecordKind, Revoke
from jobmaster.model.job import JOB_FIELDS, Job
from jobmaster_agents.mysql.rows import RECORD_JOB, RECORD_RUN, job_of, run_of
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import NOW_US, PLACES

TOMBSTONE_LIFE_US = 2 * PUT_WINDOW_US


async def changes(store: Store, session: Session, limit: int, older_than_us: int) -> list[OutboxRecord]:
    """The oldest records that are old enough. A number may be drawn long before it is committed, so what comes later
    may have a lower one: records are confirmed one by one, never up to a number."""
    found = await session.fetch(
        f"SELECT seq, kind, at_us, revoked, {RECORD_JOB}, {RECORD_RUN} FROM {store.tables.outbox} "
        f"FORCE INDEX (PRIMARY) WHERE at_us <= {NOW_US} - ? ORDER BY seq LIMIT ?",
        older_than_us,
        limit,
    )
    return [_record(values) for values in found]


async def latest(store: Store, session: Session, ids: Sequence[str]) -> dict[str, Job]:
    """Jobs that left, as their last record tells while it is unconfirmed."""
    t = store.tables
    found = await session.fetch(
        f"SELECT {RECORD_JOB} FROM {t.tombstone} AS stone FORCE INDEX (PRIMARY) "
        f"STRAIGHT_JOIN {t.outbox} AS record FORCE INDEX (PRIMARY) ON record.seq = stone.seq "
        "WHERE stone.id IN ? AND record.job_id IS NOT NULL",
        ids,
    )
    return {job.id: job for job in map(job_of, found)}


async def confirm(store: Store, session: Session, seqs: Sequence[int]) -> None:
    if seqs:
        await session.script(*session.dialect.removal(store.tables.outbox, sorted(seqs), "seq"))


async def prune(store: Store, session: Session, limit: int) -> int:
    """Forget tombstones that nobody can ask about any more; how many. Only the oldest are looked at: they are in order
    of time, and the oldest that must stay keeps those behind it, too."""
    t = store.tables
    old = f"stone.at_us < {NOW_US} - {TOMBSTONE_LIFE_US}"
    found = await session.fetch(
        f"SELECT stone.id FROM (SELECT id, seq, at_us FROM {t.tombstone} "
        f"FORCE INDEX ({t.prefix}tombstone_seq) ORDER BY seq LIMIT ?) AS stone "
        f"WHERE {old} AND NOT EXISTS "
        f"(SELECT 1 FROM {t.outbox} AS record FORCE INDEX (PRIMARY) WHERE record.seq = stone.seq)",
        limit,
    )
    if not found:
        return 0
    ids = sorted(job_id for (job_id,) in found)
    also = f"AND at_us < {NOW_US} - {TOMBSTONE_LIFE_US}"
    return sum(
        result.affected for result in await session.script(*session.dialect.removal(t.tombstone, ids, also=also))
    )


async def high_water(store: Store, session: Session) -> int:
    """The highest sequence number ever given out, or that could have been for the last ticket that was committed. One
    that is not yet would be forgotten by a server that dies now, and its store then look like one that was set back."""
    newest = await session.fetch(f"SELECT id FROM {store.tables.ticket} ORDER BY id DESC LIMIT 1")
    # `fold` keeps the newest; an earlier release did not.
    following = newest[0][0] + 1 if newest else await _following(store, session)
    return int(following) * PLACES - 1 if following > 1 else 0


async def _following(store: Store, session: Session) -> int:
    """The number that the next ticket gets."""
    [(following,)] = await session.fetch(
        "SELECT auto_increment FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
        store.tables.ticket,
    )
    return int(following or 1)


async def raise_mark(store: Store, session: Session, mark: int) -> None:
    """No record gets a sequence number up to that one any more."""
    if mark > await high_water(store, session):
        # A number given explicitly is one after which all others come; it may be given to somebody already.
        number = max(mark // PLACES, await _following(store, session))
        await session.execute(f"INSERT INTO {store.tables.ticket} (id) VALUES (?)", number)


async def any_ended(store: Store, session: Session, ids: frozenset[str]) -> bool:
    """Whether one of these has come to its end here."""
    t = store.tables
    found = await session.fetch(
        f"SELECT 1 FROM {t.tombstone} AS stone FORCE INDEX (PRIMARY) WHERE stone.id IN ? AND NOT stone.moved "
        f"AND NOT EXISTS (SELECT 1 FROM {t.job} AS j FORCE INDEX (PRIMARY) WHERE j.id = stone.id) LIMIT 1",
        ids,
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
