"""put: jobs into the store, thousands in one statement when nothing of them is known here yet."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jobmaster.contracts.values import PutAnswer
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.telemetry.probes import probe
from jobmaster_agents.sqlite.rows import COLUMNS, NULLABLE
from jobmaster_agents.sqlite.store import CLOSED_TO_NEW, Meta, Store, as_json
from jobmaster_agents.sqlite.tables import DELAYED, LEASED, READY, SIZES, bound, chunks, nullable

_PLAIN = (
    *("id", "st", "seq", "handler", "lane", "priority", "epoch", "claim_seq", "version"),
    *("created_us", "original_due_us", "due_us", "policy", "data"),
)
# What a job that has never run and carries no extras leaves at the columns' defaults.
_FULL = ("st", "seq", "last_token", "last_digest", *COLUMNS)


class Putting:
    """The verb `put` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plain = {size: _insert(store.tables.job, _PLAIN, size) for size in SIZES}
        self._full = {size: _insert(store.tables.job, _FULL, size) for size in SIZES}
        tables = store.tables
        self._buried = f"""
            DELETE FROM {tables.job} WHERE rowid > ? AND rowid IN (
                SELECT new.rowid FROM {tables.job} AS new CROSS JOIN {tables.tombstone} AS stone
                WHERE new.rowid > ? AND stone.id = new.id AND stone.epoch >= new.epoch)"""

    def put(self, connection: sqlite3.Connection, jobs: Sequence[Job], deadline_us: int) -> list[PutAnswer]:
        """In the writer's transaction: the answers, in order."""
        now_us = self._store.now_us()
        meta = self._store.check(connection)
        ids = {job.id for job in jobs}
        if len(ids) == len(jobs) and now_us <= deadline_us and meta.mode not in CLOSED_TO_NEW:
            # Insert if absent, then remove what a tombstone forbids: two steps, not one, so that a job being settled
            # meanwhile is seen either as a row or as a tombstone.
            counts: Counter[tuple[str, int]] = Counter()
            stored, before = self._insert(connection, jobs, now_us, counts)
            if stored == len(jobs) and not connection.execute(self._buried, (before, before)).rowcount:
                self._store.count(connection, counts)
                return [PutAnswer.STORED] * len(jobs)
            if stored:
                connection.execute(f"DELETE FROM {self._store.tables.job} WHERE rowid > ?", (before,))
        return self._put_known(connection, jobs, deadline_us, now_us, meta)

    def _insert(
        self,
        connection: sqlite3.Connection,
        jobs: Sequence[Job],
        now_us: int,
        counts: Counter[tuple[str, int]],
        kept: dict[str, tuple[int, int]] | None = None,
    ) -> tuple[int, int]:
        """Insert those that are absent: how many they are, and the rowid below theirs. `kept` are the last tokens and
        digests of rows they replace."""
        seq = self._store.next_seqs(connection, len(jobs))
        plain: list[list[Any]] = []
        full: list[list[Any]] = []
        for at, job in enumerate(jobs, seq):
            st = READY if job.due_us <= now_us else DELAYED
            counts[job.lane, st] += 1
            if kept is None and _is_plain(job):
                plain.append(
                    [
                        *(
                            job.id,
                            st,
                            at,
                            job.handler,
                            job.lane,
                            int(job.priority),
                            job.epoch,
                            job.claim_seq,
                            job.version,
                        ),
                        *(job.created_us, job.original_due_us, job.due_us, bytearray(job.policy), bytearray(job.data)),
                    ]
                )
            else:
                last = (kept or {}).get(job.id, (0, 0))
                full.append([st, at, *last, *(bound(getattr(job, name)) for name in COLUMNS)])
        stored = before = 0
        for statements, rows in ((self._plain, plain), (self._full, full)):
            for piece in chunks(rows):
                values = [value for row in piece for value in row]
                cursor = connection.execute(statements[len(piece)], values)
                if not stored and cursor.rowcount:
                    before = (cursor.lastrowid or 0) - cursor.rowcount
                stored += cursor.rowcount
        return stored, before

    def _put_known(
        self, connection: sqlite3.Connection, jobs: Sequence[Job], deadline_us: int, now_us: int, meta: Meta
    ) -> list[PutAnswer]:
        """Some are known here, or may not come: every answer is found before anything is stored."""
        tables = self._store.tables
        ids = as_json(job.id for job in jobs)
        rows = {
            row[0]: row[1:]
            for row in connection.execute(
                "SELECT id, epoch, st, handler, ifnull(first_data, data), last_token, last_digest, lane "
                f"FROM {tables.job} WHERE id IN (SELECT value FROM json_each(?))",
                (ids,),
            )
        }
        stones = dict(
            connection.execute(
                f"SELECT id, epoch FROM {tables.tombstone} WHERE id IN (SELECT value FROM json_each(?))",
                (ids,),
            ).fetchall()
        )
        answers: list[PutAnswer] = []
        new: dict[str, Job] = {}
        for job in jobs:
            answer = _answer(job, new.get(job.id), rows.get(job.id), stones.get(job.id), now_us > deadline_us)
            if answer is PutAnswer.STORED:
                if meta.mode in CLOSED_TO_NEW:
                    raise Refused(
                        f"agent {self._store.agent!r} is {meta.mode} and takes no new job: put job {job.id} elsewhere, "
                        "or resume the agent"
                    )
                new[job.id] = job
            answers.append(answer)
        replaced = {job_id: rows[job_id][4:6] for job_id in new.keys() & rows.keys()}
        if replaced:
            connection.execute(
                f"DELETE FROM {tables.job} WHERE id IN (SELECT value FROM json_each(?))",
                (as_json(replaced),),
            )
        counts: Counter[tuple[str, int]] = Counter()
        for job_id in replaced:
            counts[rows[job_id][6], rows[job_id][1]] -= 1
        if new:
            self._insert(connection, list(new.values()), now_us, counts, replaced)
            self._store.count(connection, counts)
        duplicates = answers.count(PutAnswer.DUPLICATE)
        if duplicates:
            probe("duplicate_put", duplicates)
        return answers


def _answer(job: Job, earlier: Job | None, row: Any, stone_epoch: int | None, late: bool) -> PutAnswer:
    known = (earlier.epoch, earlier.handler, earlier.data) if earlier else (row[0], row[2], row[3]) if row else None
    if known is not None:
        epoch, handler, data = known
        if epoch == job.epoch:
            return PutAnswer.DUPLICATE if (handler, data) == (job.handler, job.data) else PutAnswer.CONFLICT
        if epoch > job.epoch:
            return PutAnswer.STALE_EPOCH
        if row and row[1] == LEASED:
            return PutAnswer.CONFLICT
    if stone_epoch is not None and stone_epoch >= job.epoch:
        return PutAnswer.TOMBSTONED
    return PutAnswer.STALE_PUT if late else PutAnswer.STORED


def _is_plain(job: Job) -> bool:
    return (
        job.labels is None
        and job.expires_us is None
        and job.first_started_us is None
        and not (job.attempts or job.snoozes or job.interrupts or job.crash_count or job.suspect or job.effects)
        and job.schedule is None
        and job.worker is None
        and job.started_us is None
        and job.progress is None
        and job.progress_note is None
        and job.error is None
    )


def _insert(table: str, columns: Sequence[str], size: int) -> str:
    row = ", ".join(nullable("?") if name in NULLABLE else "?" for name in columns)
    values = ", ".join([f"({row})"] * size)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values} ON CONFLICT DO NOTHING"
