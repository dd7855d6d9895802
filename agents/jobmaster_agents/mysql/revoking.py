"""revoke: jobs taken back by epoch, those that are here and those that are still to come."""

from collections.abc import Sequence

import msgspec

from jobmaster.contracts import decisions
from jobmaster.contracts.mysql_text import row as values_of
from jobmaster.contracts.values import Revocation, Revoke, RevokeAnswer, RevokeKind
from jobmaster.ledger import distinct
from jobmaster_agents.mysql.ledger import Ledger
from jobmaster_agents.mysql.rows import Row
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import LEASED, PARKED

_RUNNING = Revocation(RevokeAnswer.RUNNING)
_SETTLED = Revocation(RevokeAnswer.SETTLED)
_CHANGED = Revocation(RevokeAnswer.CHANGED)

_NOBODY = ""
"""The handler of a row that only holds an id. No job has it."""


async def revoke(store: Store, session: Session, items: Sequence[Revoke]) -> tuple[list[Revocation], list[str]]:
    """The answers, and the jobs that are here no more."""
    answers = [_SETTLED] * len(items)
    gone: list[str] = []
    for run in distinct(enumerate(items)):
        rows, held = await _hold(store, session, [item.id for _, item in run])
        # Asked only now that nobody can put one of the absent ones, or revoke it, at the same time.
        stones = await _stones(store, session, held) if held else {}
        ledger = Ledger(store, session, await store.now_us(session))
        for at, item in run:
            row = rows.get(item.id)
            answers[at] = _revoke(ledger, row, item) if row else _revoke_absent(ledger, item, stones.get(item.id))
        await ledger.flush()
        if held:
            await session.script(*session.dialect.removal(store.tables.job, held))
        gone += ledger.gone
    return answers, gone


async def _hold(store: Store, session: Session, ids: Sequence[str]) -> tuple[dict[str, Row], list[str]]:
    """The rows of the jobs that are here, locked; and the ids of the others, held against everybody by a row that
    nobody ever sees: a put of the same id waits for this transaction, and then finds its tombstone."""
    rows = await store.locked(session, ids)
    absent = sorted(set(ids).difference(rows))
    if not absent:
        return rows, []
    held = b", ".join(
        values_of(job_id, PARKED, _NOBODY, 0, 0, _NOBODY, "", 0, 1, 0, 0, 0, 0, b"", b"") for job_id in absent
    )
    # It waits for a put under way, and then locks what that has stored.
    await session.script(
        b"INSERT INTO %b (id, st, line, line_rank, seq, handler, lane, priority, epoch, version, created_us, "
        b"original_due_us, due_us, policy, data) VALUES %b ON DUPLICATE KEY UPDATE seq = %b.seq"
        % (store.tables.job.encode(), held, store.tables.job.encode())
    )
    found = await store.locked(session, absent)
    rows |= {job_id: row for job_id, row in found.items() if row.job.handler != _NOBODY}
    return rows, [job_id for job_id in absent if job_id not in rows]


async def _stones(store: Store, session: Session, ids: Sequence[str]) -> dict[str, Sequence[object]]:
    found = await session.fetch(
        f"SELECT id, epoch, revoked, answer, last_token, digest FROM {store.tables.tombstone} "
        "FORCE INDEX (PRIMARY) WHERE id IN ?",
        ids,
    )
    return {stone[0]: stone[1:] for stone in found}


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
