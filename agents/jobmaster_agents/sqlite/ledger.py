"""Ledger: what one transaction does to jobs one by one, collected and then written in a few statements.

For everything but the paths that work on thousands a second (`putting`, `claiming`, `settling`): there, SQL says the
same as the decisions do here.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from jobmaster.contracts import decisions
from jobmaster.contracts.values import RecordKind, Revocation, Revoke, RevokeKind
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS, Job, Run
from jobmaster.model.states import JobState
from jobmaster_agents.sqlite import outbox
from jobmaster_agents.sqlite.rows import COLUMNS, NULLABLE, Row
from jobmaster_agents.sqlite.store import Store, as_json
from jobmaster_agents.sqlite.tables import DELAYED, READY, bound, chunks, marks

_RECORD = ("kind", "at_us", "revoked", *(f"job_{name}" for name in JOB_FIELDS), *(f"run_{name}" for name in RUN_FIELDS))
_STONE = ("seq", "id", "epoch", "last_token", "digest", "at_us", "moved", "revoked", "answer")
_CHANGED = (*(name for name in COLUMNS if name != "id"), "st", "seq", "last_token", "last_digest", "first_data")
_NULLABLE = NULLABLE | {"first_data"}


class Ledger:
    """Write through these, then `flush`, inside one function of the writer."""

    def __init__(self, store: Store, connection: sqlite3.Connection, now_us: int) -> None:
        self.now_us = now_us
        self.ready: set[str] = set()
        """Lanes with jobs that became ready."""
        self.gone: list[str] = []
        """Jobs that are here no more."""
        self._store = store
        self._connection = connection
        self._records: list[Sequence[Any]] = []
        self._stones: list[tuple[int, Sequence[Any]]] = []
        self._forgotten: list[Sequence[Any]] = []
        """Tombstones without a record."""
        self._changed: list[Row] = []
        self._moved: Counter[tuple[str, int]] = Counter()

    def end_lease(self, row: Row, job: Job, run: Run | None, digest: int) -> None:
        """A lease ended and left the job terminal, delayed, or ready again. One that is due no later than before keeps
        its place in line."""
        token = row.job.token
        if job.terminal:
            self.end(row, job, run, token, digest)
            return
        row.last_token, row.last_digest = token, digest
        if job.due_us == row.job.due_us:
            self.change(row, job, READY)
        else:
            self.shelve(row, job)
        if run is not None:
            self._record(decisions.record_kind(job), job, run)

    def shelve(self, row: Row, job: Job) -> None:
        """A waiting job stands where its due time says: delayed, or ready in a new place in line."""
        if decisions.is_due(job, self.now_us):
            self.change(row, job, READY, self._store.next_seqs(self._connection, 1))
        else:
            self.change(row, job, DELAYED)

    def change(self, row: Row, job: Job, st: int, seq: int | None = None) -> None:
        """The row holds that job and stands there, in its old place in line unless given another."""
        row.job, row.st = job, st
        row.seq = row.seq if seq is None else seq
        self._changed.append(row)
        self._moved[row.stood] -= 1
        self._moved[job.lane, st] += 1
        if st == READY:
            self.ready.add(job.lane)

    def end(self, row: Row, job: Job, run: Run | None, token: int, digest: int) -> None:
        """A job reached its end here: removed, with tombstone and record."""
        self._record(decisions.record_kind(job), job, run)
        self._stone(job.id, job.epoch, token, digest)
        self._remove(row)

    def expire(self, row: Row) -> None:
        """A waiting job ends `failed(expired)`."""
        self.end(row, decisions.expired(row.job, self.now_us), None, row.last_token, row.last_digest)

    def take_back(self, row: Row, job: Job, run: Run | None, kind: RevokeKind, answer: Revocation) -> None:
        """A job is revoked: removed, with a tombstone that knows the answer, and an `effect` record."""
        token, digest = (row.last_token, row.last_digest) if run is None else (run.token, decisions.CANCELLED_DIGEST)
        self._record(RecordKind.EFFECT, job, run)
        self._stone(job.id, job.epoch, token, digest, job.state is JobState.HELD, kind, answer)
        self._remove(row)

    def bar(
        self, item: Revoke, row: Row | None, run: Run | None, answer: Revocation, last: tuple[int, int] = (0, 0)
    ) -> None:
        """An epoch that never came can't come any more. `row` is what was here of an earlier one, and goes; `last` the
        token and digest of what ended before."""
        token, digest = last
        if row is not None:
            token, digest = row.last_token, row.last_digest
            self._remove(row)
        if run is not None:
            token, digest = run.token, decisions.CANCELLED_DIGEST
        self._record(RecordKind.EFFECT, None, run, item)
        self._stone(item.id, item.epoch, token, digest, False, item.kind, answer)

    def forget(self, row: Row) -> None:
        """A row goes of which the master knows more than is here: a tombstone, and no record."""
        values = (row.job.id, row.job.epoch, row.last_token, row.last_digest, self.now_us, False, None, None)
        self._forgotten.append([bound(value) for value in values])
        self._remove(row)

    def flush(self) -> None:
        """Write it all."""
        tables, connection = self._store.tables, self._connection
        last = 0
        for piece in chunks(self._records):
            values = ", ".join([_RECORD_MARKS] * len(piece))
            cursor = connection.execute(
                f"INSERT INTO {tables.outbox} ({', '.join(_RECORD)}) VALUES {values}",
                [value for record in piece for value in record],
            )
            last = cursor.lastrowid or 0
        first = last - len(self._records) + 1
        stones = [(first + index, *stone) for index, stone in self._stones]
        if self._forgotten:
            free = outbox.reserve(self._store, connection, len(self._forgotten))
            stones += [(free + index, *stone) for index, stone in enumerate(self._forgotten)]
        for piece in chunks(stones):
            values = ", ".join([_STONE_MARKS] * len(piece))
            connection.execute(
                f"INSERT OR REPLACE INTO {tables.tombstone} ({', '.join(_STONE)}) VALUES {values}",
                [value for stone in piece for value in stone],
            )
        self._store.count(connection, self._moved)
        if self.gone:
            connection.execute(
                f"DELETE FROM {tables.job} WHERE id IN (SELECT value FROM json_each(?))",
                (as_json(self.gone),),
            )
        for piece in chunks(self._changed):
            values = ", ".join([marks(len(_CHANGED) + 1)] * len(piece))
            assignments = ", ".join(
                f"{name} = nullif(new.column{at}, char(0))" if name in _NULLABLE else f"{name} = new.column{at}"
                for at, name in enumerate(_CHANGED, 2)
            )
            connection.execute(
                f"UPDATE {tables.job} AS old SET {assignments} "
                f"FROM (VALUES {values}) AS new WHERE old.id = new.column1",
                [value for row in piece for value in _values(row)],
            )

    def _remove(self, row: Row) -> None:
        self.gone.append(row.job.id)
        self._moved[row.stood] -= 1

    def _record(self, kind: RecordKind, job: Job | None, run: Run | None, revoked: Revoke | None = None) -> None:
        values: list[Any] = [kind, self.now_us, None if revoked is None else msgspec.json.encode(revoked).decode()]
        values += [None] * len(JOB_FIELDS) if job is None else [getattr(job, name) for name in JOB_FIELDS]
        values += [None] * len(RUN_FIELDS) if run is None else [getattr(run, name) for name in RUN_FIELDS]
        self._records.append([bound(value) for value in values])

    def _stone(
        self,
        job_id: str,
        epoch: int,
        token: int,
        digest: int,
        moved: bool = False,
        revoked: RevokeKind | None = None,
        answer: Revocation | None = None,
    ) -> None:
        """Beside the record just written."""
        kept = None if answer is None else msgspec.json.encode(answer).decode()
        values = (job_id, epoch, token, digest, self.now_us, moved, revoked, kept)
        self._stones.append((len(self._records) - 1, [bound(value) for value in values]))


def _values(row: Row) -> list[Any]:
    job = row.job
    own = (row.st, row.seq, row.last_token, row.last_digest, row.first_data)
    return [bound(value) for value in (job.id, *(getattr(job, name) for name in _CHANGED[: -len(own)]), *own)]


_RECORD_MARKS = f"({', '.join(['nullif(?, char(0))'] * len(_RECORD))})"
_STONE_MARKS = f"({', '.join(['nullif(?, char(0))'] * len(_STONE))})"
