"""Ledger: what one transaction does to jobs one by one, as this server is told of it: see `jobmaster.ledger`."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from jobmaster import ledger
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.rows import COLUMNS, TYPES, Row
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import Tables

_JOB = tuple(f"job_{name}" for name in JOB_FIELDS)
_RUN = tuple(f"run_{name}" for name in RUN_FIELDS)
_RECORD = {
    "kind": "text",
    "revoked": "text",
    **{column: TYPES[name] for column, name in zip(_JOB, JOB_FIELDS, strict=True)},
    **{column: TYPES[name] for column, name in zip(_RUN, RUN_FIELDS, strict=True)},
}
_STONE = {
    "id": "uuid",
    "epoch": "bigint",
    "last_token": "bigint",
    "digest": "bigint",
    "moved": "boolean",
    "revoked": "text",
    "answer": "text",
}
_OWN = ("st", "seq", "last_token", "last_digest", "first_data")
_CHANGED = (*(name for name in COLUMNS if name != "id"), *_OWN)
_NO_STONE: tuple[None, ...] = (None,) * len(_STONE)


class Ledger(ledger.Ledger[Row]):
    """Writes by `unnest`."""

    def __init__(self, store: Store, connection: Connection, now_us: int) -> None:
        super().__init__(now_us)
        self._store = store
        self._connection = connection

    async def flush(self) -> None:
        """Write it all."""
        store, connection = self._store, self._connection
        statements = _statements(store.tables)
        if self._unplaced:
            first = await store.next_places(connection)
            for place, row in enumerate(self._unplaced, first):
                row.seq = place
        if self._records:
            records, stones = _columns(self._records), _columns([stone or _NO_STONE for stone in self._stones])
            await connection.execute(statements.record, self.now_us, *records, *stones)
        if self._forgotten:
            await connection.execute(statements.forget, self.now_us, *_columns(self._forgotten))
        await store.count(connection, self._moved)
        if self.gone:
            await connection.execute(statements.remove, self.gone)
        if self._changed:
            await connection.execute(statements.change, *_columns([_values(row) for row in self._changed]))


def _values(row: Row) -> Sequence[Any]:
    job = row.job
    own = (row.st, row.seq, row.last_token, row.last_digest, row.first_data)
    return (job.id, *(getattr(job, name) for name in _CHANGED[: -len(own)]), *own)


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


class _Statements:
    """The texts, which are long, made once for a store."""

    def __init__(self, tables: Tables) -> None:
        record = _unnest(_RECORD.values(), 2)
        stone = _unnest(_STONE.values(), 2 + len(_RECORD))
        both = f"{record}, {stone}"
        stones = tuple(f"stone_{name}" for name in _STONE)
        again = ", ".join(f"{name} = excluded.{name}" for name in ("seq", "at_us", *_STONE) if name != "id")
        # The numbers are drawn first, so that record and tombstone have the same one.
        self.record = f"""
            WITH given AS MATERIALIZED (
                SELECT nextval('{tables.outbox_seq}') AS seq, $1::bigint AS at_us, given.*
                FROM unnest({both}) AS given ({", ".join((*_RECORD, *stones))})
            ), recorded AS (
                INSERT INTO {tables.outbox} (seq, at_us, {", ".join(_RECORD)})
                SELECT seq, at_us, {", ".join(_RECORD)} FROM given
            )
            INSERT INTO {tables.tombstone} (seq, at_us, {", ".join(_STONE)})
            SELECT seq, at_us, {", ".join(stones)} FROM given WHERE stone_id IS NOT NULL
            ON CONFLICT (id) DO UPDATE SET {again}"""
        self.forget = f"""
            INSERT INTO {tables.tombstone} (seq, at_us, {", ".join(_STONE)})
            SELECT nextval('{tables.outbox_seq}'), $1::bigint, given.*
            FROM unnest({_unnest(_STONE.values(), 2)}) AS given ({", ".join(_STONE)}) ORDER BY id
            ON CONFLICT (id) DO UPDATE SET {again}"""
        self.remove = f"DELETE FROM {tables.job} WHERE id = ANY ($1::uuid[])"
        assignments = ", ".join(f"{name} = new.{name}" for name in _CHANGED)
        types = [TYPES["id"], *(TYPES[name] for name in _CHANGED)]
        # The ids stand there twice, as the planner would read all rows for a join with a table it takes for empty.
        self.change = f"""
            UPDATE {tables.job} AS old SET {assignments}
            FROM unnest({_unnest(types, 1)}) AS new (id, {", ".join(_CHANGED)})
            WHERE old.id = new.id AND old.id = ANY ($1::uuid[])"""


def _unnest(types: Iterable[str], first: int) -> str:
    return ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, first))


@lru_cache(maxsize=64)
def _statements(tables: Tables) -> _Statements:
    return _Statements(tables)
