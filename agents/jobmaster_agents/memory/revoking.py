"""Taking jobs back: revoke, withdraw, purge."""

from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Revocation, Revoke, RevokeAnswer, RevokeKind
from jobmaster_agents.memory.shelf import Place, Row
from jobmaster_agents.memory.store import Store
from jobmaster_agents.memory.tombstones import Tombstone

_RUNNING = Revocation(RevokeAnswer.RUNNING)
_SETTLED = Revocation(RevokeAnswer.SETTLED)
_CHANGED = Revocation(RevokeAnswer.CHANGED)


def revoke(store: Store, items: Sequence[Revoke]) -> list[Revocation]:
    now_us = store.now_us()
    return [_revoke(store, item, now_us) for item in items]


def withdraw(store: Store, lane: str | None, limit: int) -> list[str]:
    rows = _waiting(store, lane, limit)
    now_us = store.now_us()
    for row in rows:
        _take_waiting(store, row, Revoke(row.job.id, row.job.epoch, RevokeKind.MOVE), now_us)
    return [row.job.id for row in rows]


def purge(store: Store, lane: str) -> int:
    """Cancel every waiting job of a lane; how many."""
    rows = _waiting(store, lane, None)
    now_us = store.now_us()
    for row in rows:
        _take_waiting(store, row, Revoke(row.job.id, row.job.epoch, RevokeKind.CANCEL), now_us)
    return len(rows)


def _revoke(store: Store, item: Revoke, now_us: int) -> Revocation:
    row = store.shelf.rows.get(item.id)
    if row is None:
        stone = store.tombstones.get(item.id)
        if stone is None or stone.epoch < item.epoch:
            return _bar(store, item, now_us) if item.version is None else _CHANGED
        repeated = (stone.epoch, stone.revoked) == (item.epoch, item.kind)
        return stone.answer if repeated and stone.answer is not None else _SETTLED
    if row.job.epoch > item.epoch:
        return _SETTLED
    if not decisions.is_meant(row.job, item):
        return _CHANGED
    leased = row.place is Place.LEASED
    if leased and item.kind is RevokeKind.MOVE:
        return _RUNNING
    if row.job.epoch < item.epoch:
        return _supersede(store, row, item, now_us)
    if leased:
        return _fence(store, row, item, now_us)
    return _take_waiting(store, row, item, now_us)


def _take_waiting(store: Store, row: Row, item: Revoke, now_us: int) -> Revocation:
    if item.kind is RevokeKind.MOVE:
        job = decisions.moved(row.job)
    else:
        job, _ = decisions.cancelled(row.job, now_us)
    return store.take_back(row, job, None, item, Revocation(RevokeAnswer.REVOKED), now_us)


def _fence(store: Store, row: Row, item: Revoke, now_us: int) -> Revocation:
    job, run = decisions.cancelled(row.job, now_us)
    answer = Revocation(RevokeAnswer.REVOKED, was_running=True, worker=row.job.worker)
    return store.take_back(row, job, run, item, answer, now_us)


def _bar(store: Store, item: Revoke, now_us: int) -> Revocation:
    """An epoch that never came: it can't come any more."""
    answer = Revocation(RevokeAnswer.ABSENT)
    before = store.tombstones.get(item.id)
    token, digest = (before.token, before.digest) if before is not None else (0, 0)
    store.tombstones.set(
        item.id,
        Tombstone(epoch=item.epoch, token=token, digest=digest, at_us=now_us, revoked=item.kind, answer=answer),
    )
    store.outbox.append_unseen(item, now_us, None)
    return answer


def _supersede(store: Store, row: Row, item: Revoke, now_us: int) -> Revocation:
    """The job is here, but only from an earlier placement: that row goes, as a put of the revoked epoch would have
    made it go, and the record says no more than that the revoked epoch can't come. The master knows the rest."""
    leased = row.place is Place.LEASED
    run = decisions.cancelled(row.job, now_us)[1] if leased else None
    token, digest = (row.job.token, decisions.CANCELLED_DIGEST) if leased else (row.last_token, row.last_digest)
    answer = Revocation(RevokeAnswer.ABSENT, was_running=leased, worker=row.job.worker if leased else None)
    store.shelf.remove(row)
    store.tombstones.set(
        item.id,
        Tombstone(epoch=item.epoch, token=token, digest=digest, at_us=now_us, revoked=item.kind, answer=answer),
    )
    store.outbox.append_unseen(item, now_us, run)
    store.hints.ended(item.id)
    return answer


def _waiting(store: Store, lane: str | None, limit: int | None) -> list[Row]:
    found: list[Row] = []
    for job_id in store.shelf.order.after(""):
        if len(found) == limit:
            break
        row = store.shelf.rows[job_id]
        if row.place is not Place.LEASED and lane in (None, row.job.lane):
            found.append(row)
    return found
