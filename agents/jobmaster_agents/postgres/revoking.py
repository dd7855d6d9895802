"""revoke: jobs taken back by epoch, those that are here and those that are still to come."""

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Revocation, Revoke, RevokeAnswer, RevokeKind
from jobmaster.ledger import distinct
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.ledger import Ledger
from jobmaster_agents.postgres.rows import Row
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import LEASED, PARKED, Tables

_RUNNING = Revocation(RevokeAnswer.RUNNING)
_SETTLED = Revocation(RevokeAnswer.SETTLED)
_CHANGED = Revocation(RevokeAnswer.CHANGED)


class _Statements:
    """The texts, made once for a store."""

    def __init__(self, t: Tables) -> None:
        self.placeholder = f"""
            INSERT INTO {t.job} (id, st, seq, handler, lane, priority, epoch, version, created_us, original_due_us,
                due_us, policy, data)
            SELECT id, {PARKED}, 0, '', '', 0, 1, 0, 0, 0, 0, '', '' FROM unnest($1::uuid[]) AS given (id) ORDER BY id
            ON CONFLICT (id) DO NOTHING RETURNING id::text"""
        self.stones = f"""
            SELECT id::text, epoch, revoked, answer, last_token, digest FROM {t.tombstone}
            WHERE id = ANY ($1::uuid[])"""
        self.remove = f"DELETE FROM {t.job} WHERE id = ANY ($1::uuid[])"


@lru_cache(maxsize=64)
def _statements(tables: Tables) -> _Statements:
    return _Statements(tables)


async def revoke(store: Store, connection: Connection, items: Sequence[Revoke]) -> tuple[list[Revocation], list[str]]:
    """The answers, and the jobs that are here no more."""
    answers = [_SETTLED] * len(items)
    gone: list[str] = []
    statements = _statements(store.tables)
    for run in distinct(enumerate(items)):
        rows, held = await _hold(store, connection, sorted(item.id for _, item in run))
        # Asked only now that nobody can put one of the absent ones, or revoke it, at the same time.
        found = await connection.fetch(statements.stones, held) if held else []
        stones = {stone[0]: stone[1:] for stone in found}
        ledger = Ledger(store, connection, await store.now_us(connection))
        for at, item in run:
            row = rows.get(item.id)
            answers[at] = _revoke(ledger, row, item) if row else _revoke_absent(ledger, item, stones.get(item.id))
        await ledger.flush()
        if held:
            await connection.execute(statements.remove, held)
        gone += ledger.gone
    return answers, gone


async def _hold(store: Store, connection: Connection, ids: Sequence[str]) -> tuple[dict[str, Row], list[str]]:
    """The rows of the jobs that are here, locked; and the ids of the others, held against everybody by a row that
    nobody ever sees: a put of the same id waits for this transaction, and then finds its tombstone."""
    rows = await store.locked(connection, ids)
    absent = [job_id for job_id in ids if job_id not in rows]
    if not absent:
        return rows, []
    placed = await connection.fetch(_statements(store.tables).placeholder, absent)
    held = {job_id for (job_id,) in placed}
    came = [job_id for job_id in absent if job_id not in held]
    if came:
        # A put was just being committed.
        rows |= await store.locked(connection, came)
        # What came may have gone again: then the next round holds it.
        again = [job_id for job_id in came if job_id not in rows]
        if again:
            more, also = await _hold(store, connection, again)
            rows |= more
            held |= set(also)
    return rows, sorted(held)


def _revoke(ledger: Ledger, row: Row, item: Revoke) -> Revocation:
    if row.job.epoch > item.epoch:
        return _SETTLED
    if not decisions.is_meant(row.job, item):
        return _CHANGED
    leased = row.st == LEASED
    if leased and item.kind is RevokeKind.MOVE:
        return _RUNNING
    worker = row.job.worker if leased else None
    if row.job.epoch < item.epoch:
        # Only an earlier placement is here: it goes, as a put of the revoked epoch would have made it go, and the
        # record says no more than that the revoked epoch can't come. The master knows the rest.
        run = decisions.cancelled(row.job, ledger.now_us)[1] if leased else None
        answer = Revocation(RevokeAnswer.ABSENT, was_running=leased, worker=worker)
        ledger.bar(item, row, run, answer)
        return answer
    if item.kind is RevokeKind.MOVE:
        return take(ledger, row, item.kind)
    job, run = decisions.cancelled(row.job, ledger.now_us)
    answer = Revocation(RevokeAnswer.REVOKED, was_running=leased, worker=worker)
    ledger.take_back(row, job, run, item.kind, answer)
    return answer


def _revoke_absent(ledger: Ledger, item: Revoke, stone: Sequence[object] | None) -> Revocation:
    if stone is None:
        if item.version is not None:
            return _CHANGED
        answer = Revocation(RevokeAnswer.ABSENT)
        ledger.bar(item, None, None, answer)
        return answer
    epoch, revoked, kept, last_token, digest = stone
    assert isinstance(epoch, int)
    assert isinstance(last_token, int)
    assert isinstance(digest, int)
    if epoch < item.epoch:
        if item.version is not None:
            return _CHANGED
        answer = Revocation(RevokeAnswer.ABSENT)
        ledger.bar(item, None, None, answer, (last_token, digest))
        return answer
    if (epoch, revoked) == (item.epoch, item.kind.value) and isinstance(kept, str):
        return msgspec.json.decode(kept, type=Revocation)
    return _SETTLED


def take(ledger: Ledger, row: Row, kind: RevokeKind) -> Revocation:
    """A waiting job leaves: cancelled, or moved to the master."""
    job = decisions.moved(row.job) if kind is RevokeKind.MOVE else decisions.cancelled(row.job, ledger.now_us)[0]
    answer = Revocation(RevokeAnswer.REVOKED)
    ledger.take_back(row, job, None, kind, answer)
    return answer
