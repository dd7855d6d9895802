"""settle: outcomes of runs, and what is left of their jobs.

Success and failure, which need nothing of the policy, are written for the whole batch by one insert into the outbox
that says what `decisions.settled` does; a trigger on the outbox writes the tombstone and removes the job. Statements
for the batch that did the same would take a third less processor time, but while the event loop is busy the writer's
thread waits up to a switch interval (5 ms) for the interpreter lock after each of them. All other outcomes go through
the decisions one by one.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from jobmaster.contracts import decisions
from jobmaster.contracts.values import SettleAnswer, Settlement
from jobmaster.ledger import distinct
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster.model.outcome import RunOutcome
from jobmaster.settling import BULK, BY_STORE_ONLY, Ended
from jobmaster.telemetry.probes import probe
from jobmaster_agents.sqlite.ledger import Ledger
from jobmaster_agents.sqlite.rows import Row
from jobmaster_agents.sqlite.store import COUNT_UP, Store
from jobmaster_agents.sqlite.tables import LEASED, NOTHING, bound, marks, nullable, quoted

_SIZES = (1, 4, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Rows per statement; what a batch has less is filled up with rows that match nothing."""

_BARE = ("id", "token", "digest", "worker", "host", "started_us", "finished_us", "result")
"""What a success without progress, error or detail brings."""
_FULL = (*_BARE, "outcome", "reason", "error", "detail", "progress", "progress_note")
_OPTIONAL = frozenset({"result", "reason", "error", "detail", "progress", "progress_note"})


class Piece:
    """Settlements that one statement writes."""

    __slots__ = ("ids", "statement", "values")

    def __init__(self, statement: str, values: list[Any], ids: list[str]) -> None:
        self.statement = statement
        self.values = values
        self.ids = ids


class Batch:
    """Settlements made ready for the writer; `others` are the numbers of those that go one by one."""

    __slots__ = ("items", "others", "pieces")

    def __init__(self, items: Sequence[Settlement], pieces: list[Piece], others: list[int]) -> None:
        self.items = items
        self.pieces = pieces
        self.others = others


class Settling:
    """The verb `settle` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        t = store.tables
        self._bare = {size: _record(store, _BARE, size) for size in _SIZES}
        self._full = {size: _record(store, _FULL, size) for size in _SIZES}
        self._count = f"""
            INSERT INTO {t.lane} (name, leased)
            SELECT job_lane, -count(*) FROM {t.outbox} WHERE seq > ? GROUP BY job_lane {COUNT_UP}"""
        self._written = f"SELECT run_job_id FROM {t.outbox} WHERE seq > ?"

    def prepare(self, items: Sequence[Settlement]) -> Batch:
        """All that can be done before the transaction, on whatever thread asks: the writer has less to do."""
        bulk: dict[str, Settlement] = {}
        others: list[int] = []
        seen: set[str] = set()
        bare = True
        for at, item in enumerate(items):
            if item.id in seen or item.outcome not in BULK:
                others.append(at)
            else:
                bulk[item.id] = item
                bare = bare and _is_bare(item)
            seen.add(item.id)
        settled = list(bulk.values())
        pieces = [self._piece(settled[at : at + _SIZES[-1]], bare) for at in range(0, len(settled), _SIZES[-1])]
        return Batch(items, pieces, others)

    def _piece(self, items: Sequence[Settlement], bare: bool) -> Piece:
        size = next(size for size in _SIZES if size >= len(items))
        # Store time comes first, and is known in the transaction only.
        values: list[Any] = [0]
        for s in items:
            values += (s.id, s.token, s.digest(), s.worker, s.host, s.started_us, s.finished_us)
            values.append(NOTHING if s.result is None else bytearray(s.result))
            if not bare:
                values += (s.outcome.value, bound(s.reason), bound(s.error), bound(s.detail))
                values += (bound(s.progress), bound(s.progress_note))
        values += [""] * (len(_BARE if bare else _FULL) * (size - len(items)))
        values.append(self._store.incarnation)
        return Piece((self._bare if bare else self._full)[size], values, [s.id for s in items])

    def settle(self, connection: sqlite3.Connection, batch: Batch) -> Ended:
        """In the writer's transaction."""
        now_us = self._store.now_us()
        items, others = batch.items, batch.others
        ended = Ended([SettleAnswer.ACCEPTED] * len(items))
        missed: set[str] = set()
        for piece in batch.pieces:
            absent = self._write(connection, piece, now_us)
            missed |= absent
            ended.gone += [job_id for job_id in piece.ids if job_id not in absent] if absent else piece.ids
        if not missed and not others:
            return ended
        self._store.check(connection)
        alone = sorted({*others, *(at for at, item in enumerate(items) if item.id in missed)})
        for run in distinct([(at, items[at]) for at in alone]):
            rows = self._store.by_id(connection, [item.id for _, item in run])
            ledger = Ledger(self._store, connection, now_us)
            for at, item in run:
                ended.answers[at] = self._one(connection, ledger, rows.get(item.id), item)
            ledger.flush()
            ended.take(ledger)
        stale = ended.answers.count(SettleAnswer.STALE)
        if stale:
            probe("stale_settle", stale)
        return ended

    def _write(self, connection: sqlite3.Connection, piece: Piece, now_us: int) -> set[str]:
        """Settle what is leased by its token; the ids that were not."""
        piece.values[0] = now_us
        cursor = connection.execute(piece.statement, piece.values)
        written = cursor.rowcount
        before = (cursor.lastrowid or 0) - written
        if written:
            connection.execute(self._count, (before,))
        if written == len(piece.ids):
            return set()
        found = {row[0] for row in connection.execute(self._written, (before,))} if written else set()
        return {job_id for job_id in piece.ids if job_id not in found}

    def _one(self, connection: sqlite3.Connection, ledger: Ledger, row: Row | None, item: Settlement) -> SettleAnswer:
        if item.outcome in BY_STORE_ONLY:
            raise ValueError(f"job {item.id}: outcome {item.outcome} is written by the store, not settled by a worker")
        if row is None or row.st != LEASED or row.job.token != item.token:
            return repeated(self._store, connection, item.id, item.token, item.digest())
        job, run = decisions.settled(row.job, item, ledger.now_us)
        ledger.end_lease(row, job, run, item.digest())
        return SettleAnswer.ACCEPTED


def _is_bare(item: Settlement) -> bool:
    return item.outcome is RunOutcome.SUCCEEDED and item.error is None and item.detail is None and item.progress is None


def repeated(store: Store, connection: sqlite3.Connection, job_id: str, token: int, digest: int) -> SettleAnswer:
    """The answer to somebody who holds no lease: a repetition of what ended it, overtaken, or never heard of."""
    t = store.tables
    found = connection.execute(
        f"SELECT last_token, last_digest FROM {t.job} WHERE id = ?1 "
        f"UNION ALL SELECT last_token, digest FROM {t.tombstone} WHERE id = ?1",
        (job_id,),
    ).fetchall()
    if not found:
        return SettleAnswer.UNKNOWN
    return SettleAnswer.ACCEPTED if (token, digest) in found else SettleAnswer.STALE


def _record(store: Store, columns: Sequence[str], size: int) -> str:
    """The statement that writes the outbox records of a batch: its values joined to the jobs as they then stand."""
    value = {
        name: nullable(f"s.column{at}") if name in _OPTIONAL else f"s.column{at}" for at, name in enumerate(columns, 1)
    }
    full = columns is _FULL
    outcome = value["outcome"] if full else f"'{RunOutcome.SUCCEEDED}'"
    failed = f"({outcome} = '{RunOutcome.FAILED}')"
    job = {
        "state": outcome,
        "reason": f"CASE WHEN {failed} THEN ifnull({value['reason']}, 'exhausted') END" if full else "NULL",
        "agent": quoted(store.agent),
        "version": "j.version + 1",
        "attempts": f"j.attempts + {failed}" if full else "j.attempts",
        "suspect": "0",
        "started_us": "NULL",
        "finished_us": "?1",
        "first_started_us": f"ifnull(j.first_started_us, min({value['started_us']}, ?1))",
        "result": f"CASE WHEN NOT {failed} THEN {value['result']} END" if full else value["result"],
        "error": f"ifnull({value['error']}, j.error)" if full else "j.error",
    }
    if full:
        given = f"{value['progress']} IS NULL"
        job["progress"] = f"ifnull({value['progress']}, j.progress)"
        job["progress_note"] = f"CASE WHEN {given} THEN j.progress_note ELSE {value['progress_note']} END"
    run = {
        "job_id": "j.id",
        "token": value["token"],
        "attempt": "j.attempts + 1",
        "worker": value["worker"],
        "host": value["host"],
        "started_us": value["started_us"],
        "finished_us": value["finished_us"],
        "outcome": outcome,
        "error": value["error"] if full else "NULL",
        "detail": value["detail"] if full else "NULL",
    }
    t = store.tables
    names = (*(f"job_{name}" for name in JOB_FIELDS), *(f"run_{name}" for name in RUN_FIELDS))
    values = (*(job.get(name, f"j.{name}") for name in JOB_FIELDS), *(run[name] for name in RUN_FIELDS))
    rows = ", ".join([marks(len(columns))] * size)
    return (
        f"INSERT INTO {t.outbox} (kind, at_us, digest, {', '.join(names)}) "
        f"SELECT iif(j.effects, 'effect', 'plain'), ?1, {value['digest']}, {', '.join(values)} "
        # CROSS JOIN keeps the values outside: the planner may not begin with the leased jobs.
        f"FROM (VALUES {rows}) AS s CROSS JOIN {t.job} AS j WHERE j.id = s.column1 AND j.st = {LEASED} "
        f"AND (j.epoch << 32 | j.claim_seq) = s.column2 AND (SELECT incarnation FROM {t.meta}) = ?"
    )
