"""What happens to leases: extend, settle, release, reap.

The fence is one comparison, and the same for all: the row is leased, and its job's token is the caller's. Whoever fails
it learns whether it is repeating itself (`accepted`, once more) or was overtaken (`stale`).
"""

from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import ExtendAnswer, Extension, ReapReport, Release, SettleAnswer, Settlement, StoreMode
from jobmaster.model.outcome import RunOutcome
from jobmaster.telemetry.probes import probe
from jobmaster_agents.memory.shelf import Place, Row
from jobmaster_agents.memory.store import Store

_BY_STORE_ONLY = frozenset({RunOutcome.LAPSED, RunOutcome.CANCELLED})


def extend(store: Store, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
    now_us = store.now_us()
    return [_extend(store, item, ttl_us, now_us) for item in items]


def _extend(store: Store, item: Extension, ttl_us: int, now_us: int) -> ExtendAnswer:
    row = _leased(store, item.id, item.token)
    if row is None:
        stone = store.tombstones.get(item.id)
        cancelled = stone is not None and (stone.token, stone.digest) == (item.token, decisions.CANCELLED_DIGEST)
        return ExtendAnswer.CANCELLED if cancelled else ExtendAnswer.LOST
    if row.leased_until_us <= now_us:
        return ExtendAnswer.LOST
    store.shelf.prolong(row, decisions.extended(row.job, item, now_us), now_us + ttl_us)
    return ExtendAnswer.HELD


def settle(store: Store, items: Sequence[Settlement]) -> list[SettleAnswer]:
    for item in items:
        if item.outcome in _BY_STORE_ONLY:
            raise ValueError(f"job {item.id}: outcome {item.outcome} is written by the store, not settled by a worker")
    now_us = store.now_us()
    answers = [_settle(store, item, now_us) for item in items]
    stale = answers.count(SettleAnswer.STALE)
    if stale:
        probe("stale_settle", stale)
    return answers


def _settle(store: Store, item: Settlement, now_us: int) -> SettleAnswer:
    row = _leased(store, item.id, item.token)
    if row is None:
        return _repeated(store, item.id, item.token, item.digest())
    job, run = decisions.settled(row.job, item, now_us)
    store.end_lease(row, job, run, item.digest(), now_us)
    return SettleAnswer.ACCEPTED


def release(store: Store, items: Sequence[Release]) -> list[SettleAnswer]:
    now_us = store.now_us()
    return [_release(store, item, now_us) for item in items]


def _release(store: Store, item: Release, now_us: int) -> SettleAnswer:
    digest = decisions.release_digest(item)
    row = _leased(store, item.id, item.token)
    if row is None:
        return _repeated(store, item.id, item.token, digest)
    job, run = decisions.released(row.job, item, now_us)
    store.end_lease(row, job, run, digest, now_us)
    return SettleAnswer.ACCEPTED


def reap(store: Store, limit: int, dead: frozenset[str], expired: bool) -> ReapReport:
    if store.mode is StoreMode.QUARANTINED:
        return ReapReport()
    now_us, shelf = store.now_us(), store.shelf
    crashed: list[str] = []
    ended = 0
    while expired and ended < limit and (first := shelf.leases.first()) is not None and first[0] <= now_us:
        _lapse(store, shelf.rows[first[1]], crashed, now_us)
        ended += 1
    for worker in sorted(dead & shelf.held_by.keys()):
        for job_id in sorted(shelf.held_by[worker])[: limit - ended]:
            _lapse(store, shelf.rows[job_id], crashed, now_us)
            ended += 1
    if ended:
        probe("lease_lapsed", ended)
    return ReapReport(requeued=ended - len(crashed), crashed=tuple(crashed), more=ended == limit)


def _lapse(store: Store, row: Row, crashed: list[str], now_us: int) -> None:
    job, run = decisions.lapsed(row.job, now_us)
    store.end_lease(row, job, run, decisions.LAPSED_DIGEST, now_us)
    if job.terminal:
        crashed.append(job.id)


def _leased(store: Store, job_id: str, token: int) -> Row | None:
    row = store.shelf.rows.get(job_id)
    return row if row is not None and row.place is Place.LEASED and row.job.token == token else None


def _repeated(store: Store, job_id: str, token: int, digest: int) -> SettleAnswer:
    row, stone = store.shelf.rows.get(job_id), store.tombstones.get(job_id)
    if row is None and stone is None:
        return SettleAnswer.UNKNOWN
    if row is not None and (row.last_token, row.last_digest) == (token, digest):
        return SettleAnswer.ACCEPTED
    if stone is not None and (stone.token, stone.digest) == (token, digest):
        return SettleAnswer.ACCEPTED
    return SettleAnswer.STALE
