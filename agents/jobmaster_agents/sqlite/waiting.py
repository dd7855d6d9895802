"""Waiting jobs: promote, park, amend, revoke, withdraw, purge."""

import sqlite3
from collections import Counter
from collections.abc import Sequence

import msgspec

from jobmaster.contracts import decisions
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    ParkReport,
    PromoteReport,
    Revocation,
    Revoke,
    RevokeAnswer,
    RevokeKind,
)
from jobmaster.ledger import distinct
from jobmaster_agents.sqlite.claiming import expire_waiting
from jobmaster_agents.sqlite.ledger import Ledger
from jobmaster_agents.sqlite.rows import Row
from jobmaster_agents.sqlite.store import Store, as_json
from jobmaster_agents.sqlite.tables import DELAYED, LEASED, PARKED, READY

_RUNNING = Revocation(RevokeAnswer.RUNNING)
_SETTLED = Revocation(RevokeAnswer.SETTLED)
_CHANGED = Revocation(RevokeAnswer.CHANGED)


def promote(store: Store, connection: sqlite3.Connection, limit: int) -> tuple[PromoteReport, Ledger]:
    t = store.tables
    now_us = store.now_us()
    ledger = Ledger(store, connection, now_us)
    if store.quarantined(connection):
        return PromoteReport(), ledger
    expired = expire_waiting(store, connection, ledger, limit)
    ledger.flush()
    due = connection.execute(
        f"SELECT rowid, lane FROM {t.job} WHERE st = {DELAYED} AND due_us <= ? ORDER BY due_us, seq LIMIT ?",
        (now_us, limit),
    ).fetchall()
    if due:
        first = store.next_seqs(connection, len(due))
        connection.execute(
            f"UPDATE {t.job} SET st = {READY}, seq = ?1 + e.key FROM json_each(?2) AS e WHERE {t.job}.rowid = e.value",
            (first, msgspec.json.encode([rowid for rowid, _ in due]).decode()),
        )
        ledger.ready |= {lane for _, lane in due}
        store.count(connection, _moves([lane for _, lane in due], DELAYED, READY))
    (next_due_us,) = connection.execute(
        f"SELECT min(at) FROM (SELECT min(due_us) AS at FROM {t.job} WHERE st = {DELAYED} UNION ALL "
        f"SELECT min(expires_us) FROM {t.job} WHERE expires_us IS NOT NULL AND st <> {LEASED})"
    ).fetchone()
    more = len(due) == limit or expired == limit
    return PromoteReport(ready=len(due), expired=expired, next_due_us=next_due_us, more=more), ledger


def _moves(lanes: Sequence[str], before: int, after: int) -> Counter[tuple[str, int]]:
    counts: Counter[tuple[str, int]] = Counter()
    for lane in lanes:
        counts[lane, before] -= 1
        counts[lane, after] += 1
    return counts


def unknown_ready(store: Store, connection: sqlite3.Connection, known: frozenset[str], limit: int) -> list[int]:
    """Rows of ready jobs whose handler is not known. Reads the whole line if there are few, so not for the writer."""
    t = store.tables
    found = connection.execute(
        f"SELECT rowid FROM {t.job} INDEXED BY {t.job}_ready "
        f"WHERE st = {READY} AND handler NOT IN (SELECT value FROM json_each(?)) LIMIT ?",
        (as_json(sorted(known)), limit),
    )
    return [rowid for (rowid,) in found]


def given_up(store: Store, connection: sqlite3.Connection, known: frozenset[str], limit: int) -> list[int]:
    """Rows of parked jobs that have waited for a handler as long as they may. Reads all parked ones, so not for the
    writer."""
    t = store.tables
    found = connection.execute(
        f"SELECT rowid FROM {t.job} INDEXED BY {t.job}_parked "
        f"WHERE st = {PARKED} AND handler NOT IN (SELECT value FROM json_each(?1)) "
        "AND CASE WHEN instr(policy, CAST('unroutable_after_us' AS BLOB)) AND json_valid(CAST(policy AS TEXT)) "
        "THEN due_us + json_extract(CAST(policy AS TEXT), '$.unroutable_after_us') <= ?2 END LIMIT ?3",
        (as_json(sorted(known)), store.now_us(), limit),
    )
    return [rowid for (rowid,) in found]


def give_up(store: Store, connection: sqlite3.Connection, known: frozenset[str], candidates: Sequence[int]) -> Ledger:
    """End those of the candidates, which are from `given_up`, that are still parked."""
    ledger = Ledger(store, connection, store.now_us())
    numbers = msgspec.json.encode(candidates).decode()
    for row in store.select(connection, f"WHERE rowid IN (SELECT value FROM json_each(?)) AND st = {PARKED}", numbers):
        ended = None if row.job.handler in known else decisions.unroutable(row.job, ledger.now_us)
        if ended is not None:
            ledger.end(row, ended, None, row.last_token, row.last_digest)
    ledger.flush()
    return ledger


def park(
    store: Store, connection: sqlite3.Connection, known: frozenset[str], limit: int, candidates: Sequence[int]
) -> tuple[ParkReport, set[str]]:
    """The report, and the lanes that have ready jobs again. `candidates` are from `unknown_ready`."""
    t = store.tables
    names = as_json(sorted(known))
    unknown = connection.execute(
        f"SELECT rowid, handler, lane FROM {t.job} WHERE rowid IN (SELECT value FROM json_each(?)) "
        f"AND st = {READY} AND handler NOT IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(candidates).decode(), names),
    ).fetchall()
    found = connection.execute(
        f"SELECT rowid, lane FROM {t.job} INDEXED BY {t.job}_parked "
        f"WHERE st = {PARKED} AND handler IN (SELECT value FROM json_each(?)) LIMIT ?",
        (names, limit),
    ).fetchall()
    for st, rows in ((PARKED, unknown), (READY, found)):
        if rows:
            connection.execute(
                f"UPDATE {t.job} SET st = {st} WHERE rowid IN (SELECT value FROM json_each(?))",
                (msgspec.json.encode([row[0] for row in rows]).decode(),),
            )
    store.count(connection, _moves([lane for _, _, lane in unknown], READY, PARKED))
    store.count(connection, _moves([lane for _, lane in found], PARKED, READY))
    parked: dict[str, int] = {}
    for _, handler, _ in unknown:
        parked[handler] = parked.get(handler, 0) + 1
    more = len(candidates) == limit or len(found) == limit
    return ParkReport(parked=parked, unparked=len(found), more=more), {lane for _, lane in found}


def amend(
    store: Store, connection: sqlite3.Connection, items: Sequence[Amendment]
) -> tuple[list[AmendAnswer], set[str]]:
    """The answers, and the lanes that have jobs made ready."""
    answers = [AmendAnswer.UNKNOWN] * len(items)
    ready: set[str] = set()
    now_us = store.now_us()
    for run in distinct(enumerate(items)):
        rows = store.by_id(connection, [item.id for _, item in run])
        ledger = Ledger(store, connection, now_us)
        for at, item in run:
            if item.id in rows:
                answers[at] = _amend(ledger, rows[item.id], item)
        ledger.flush()
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


def revoke(store: Store, connection: sqlite3.Connection, items: Sequence[Revoke]) -> tuple[list[Revocation], list[str]]:
    """The answers, and the jobs that are here no more."""
    answers = [_SETTLED] * len(items)
    gone: list[str] = []
    now_us = store.now_us()
    for run in distinct(enumerate(items)):
        rows = store.by_id(connection, [item.id for _, item in run])
        ledger = Ledger(store, connection, now_us)
        for at, item in run:
            row = rows.get(item.id)
            answers[at] = _revoke(ledger, row, item) if row else _revoke_absent(store, connection, ledger, item)
        ledger.flush()
        gone += ledger.gone
    return answers, gone


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
        return _take(ledger, row, item.kind)
    job, run = decisions.cancelled(row.job, ledger.now_us)
    answer = Revocation(RevokeAnswer.REVOKED, was_running=leased, worker=worker)
    ledger.take_back(row, job, run, item.kind, answer)
    return answer


def _revoke_absent(store: Store, connection: sqlite3.Connection, ledger: Ledger, item: Revoke) -> Revocation:
    stone = connection.execute(
        f"SELECT epoch, revoked, answer, last_token, digest FROM {store.tables.tombstone} WHERE id = ?",
        (item.id,),
    ).fetchone()
    if stone is None or stone[0] < item.epoch:
        if item.version is not None:
            return _CHANGED
        answer = Revocation(RevokeAnswer.ABSENT)
        ledger.bar(item, None, None, answer, (0, 0) if stone is None else stone[3:])
        return answer
    if stone[:2] == (item.epoch, item.kind.value) and stone[2] is not None:
        return msgspec.json.decode(stone[2], type=Revocation)
    return _SETTLED


def take_waiting(
    store: Store, connection: sqlite3.Connection, lane: str | None, kind: RevokeKind, limit: int, after_id: str = ""
) -> list[str]:
    """Revoke up to `limit` waiting jobs of a lane (None: all), in id order; their ids."""
    ledger = Ledger(store, connection, store.now_us())
    in_lane = "" if lane is None else "AND lane = ?"
    rows = store.select(
        connection,
        f"WHERE id > ? AND st <> {LEASED} {in_lane} ORDER BY id LIMIT ?",
        after_id,
        *(() if lane is None else (lane,)),
        limit,
    )
    for row in rows:
        _take(ledger, row, kind)
    ledger.flush()
    return [row.job.id for row in rows]


def _take(ledger: Ledger, row: Row, kind: RevokeKind) -> Revocation:
    job = decisions.moved(row.job) if kind is RevokeKind.MOVE else decisions.cancelled(row.job, ledger.now_us)[0]
    answer = Revocation(RevokeAnswer.REVOKED)
    ledger.take_back(row, job, None, kind, answer)
    return answer
