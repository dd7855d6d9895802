"""The outbox and the tombstones: what the master has yet to learn, and what must not come back."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from jobmaster.contracts.values import PUT_WINDOW_US, OutboxRecord, RecordKind, Revoke
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS, Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason, JobState
from jobmaster_agents.sqlite.store import Store, as_json

TOMBSTONE_LIFE_US = 2 * PUT_WINDOW_US
_NEVER = (1 << 63) - 1

_JOB = ", ".join(f"job_{name}" for name in JOB_FIELDS)
_RUN = ", ".join(f"run_{name}" for name in RUN_FIELDS)


def changes(store: Store, connection: sqlite3.Connection, limit: int, older_than_us: int) -> list[OutboxRecord]:
    """The oldest records that are old enough."""
    found = connection.execute(
        f"SELECT seq, kind, at_us, revoked, {_JOB}, {_RUN} FROM {store.tables.outbox} "
        "WHERE seq > 0 AND at_us <= ? ORDER BY seq LIMIT ?",
        (store.now_us() - older_than_us, limit),
    )
    return [_record(values) for values in found]


def latest(store: Store, connection: sqlite3.Connection, ids: str) -> dict[str, Job]:
    """Jobs that left, as their last record tells while it is unconfirmed; `ids` as JSON."""
    found = connection.execute(
        f"SELECT {_JOB} FROM {store.tables.tombstone} AS stone CROSS JOIN {store.tables.outbox} AS record USING (seq) "
        "WHERE stone.id IN (SELECT value FROM json_each(?)) AND job_id IS NOT NULL",
        (ids,),
    )
    return {job.id: job for job in map(_job, found)}


def confirm(store: Store, connection: sqlite3.Connection, seqs: Sequence[int]) -> None:
    if not seqs:
        return
    # The bounds keep a planner that believes in an all but empty outbox from reading a long one whole.
    connection.execute(
        f"DELETE FROM {store.tables.outbox} WHERE seq BETWEEN ? AND ? AND seq IN (SELECT value FROM json_each(?))",
        (min(seqs), max(seqs), msgspec.json.encode(list(seqs)).decode()),
    )


def prune(store: Store, connection: sqlite3.Connection, limit: int) -> int:
    """Forget tombstones that nobody can ask about any more; how many."""
    t = store.tables
    horizon = store.now_us() - TOMBSTONE_LIFE_US
    # They are in order of time: the first young one ends the scan.
    (young,) = connection.execute(
        f"SELECT ifnull((SELECT seq FROM {t.tombstone} WHERE seq > 0 AND at_us >= ? ORDER BY seq LIMIT 1), {_NEVER})",
        (horizon,),
    ).fetchone()
    return connection.execute(
        f"DELETE FROM {t.tombstone} WHERE seq < ? AND seq IN ("
        f"SELECT seq FROM {t.tombstone} AS stone WHERE seq < ? AND NOT EXISTS ("
        f"SELECT 1 FROM {t.outbox} AS record WHERE record.seq = stone.seq) ORDER BY seq LIMIT ?)",
        (young, young, limit),
    ).rowcount


def high_water(store: Store, connection: sqlite3.Connection) -> int:
    """The highest sequence number ever given out."""
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (store.tables.outbox,)).fetchone()
    return 0 if found is None else int(found[0])


def reserve(store: Store, connection: sqlite3.Connection, count: int) -> int:
    """The first of `count` sequence numbers that no record will have."""
    raise_mark(store, connection, 0)
    (last,) = connection.execute(
        "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ? RETURNING seq", (count, store.tables.outbox)
    ).fetchone()
    return int(last) - count + 1


def raise_mark(store: Store, connection: sqlite3.Connection, mark: int) -> None:
    """No record gets a sequence number up to that one any more."""
    name = store.tables.outbox
    connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (mark, name))
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT ?1, ?2 "
        "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
        (name, mark),
    )


def _record(values: tuple[Any, ...]) -> OutboxRecord:
    seq, kind, at_us, revoked, *rest = values
    job, run = rest[: len(JOB_FIELDS)], rest[len(JOB_FIELDS) :]
    return OutboxRecord(
        seq=seq,
        kind=RecordKind(kind),
        at_us=at_us,
        job=None if job[0] is None else _job(job),
        run=None if run[0] is None else _run(run),
        revoked=None if revoked is None else msgspec.json.decode(revoked, type=Revoke),
    )


def _job(values: Sequence[Any]) -> Job:
    fields = dict(zip(JOB_FIELDS, values, strict=True))
    fields["state"] = JobState(fields["state"])
    fields["reason"] = None if fields["reason"] is None else FailReason(fields["reason"])
    fields["suspect"] = bool(fields["suspect"])
    fields["effects"] = bool(fields["effects"])
    return Job(**fields)


def _run(values: Sequence[Any]) -> Run:
    fields = dict(zip(RUN_FIELDS, values, strict=True))
    fields["outcome"] = RunOutcome(fields["outcome"])
    return Run(**fields)


def any_ended(store: Store, connection: sqlite3.Connection, ids: frozenset[str]) -> bool:
    """Whether one of these has come to its end here."""
    t = store.tables
    return (
        connection.execute(
            f"SELECT 1 FROM {t.tombstone} AS stone WHERE id IN (SELECT value FROM json_each(?)) "
            f"AND NOT moved AND NOT EXISTS (SELECT 1 FROM {t.job} AS j WHERE j.id = stone.id) LIMIT 1",
            (as_json(ids),),
        ).fetchone()
        is not None
    )
