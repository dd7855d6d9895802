"""Ledger: what one transaction does to jobs one by one, as this server is told of it: see `jobmaster.ledger`."""

from collections.abc import Iterator, Sequence
from typing import Any

from jobmaster import ledger
from jobmaster.contracts.mysql_text import chunks, keyed, row
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster_agents.mysql.rows import COLUMNS, LINE, Row, standing
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store

_RECORD = ("kind", "revoked", *(f"job_{name}" for name in JOB_FIELDS), *(f"run_{name}" for name in RUN_FIELDS))
_STONE = ("id", "epoch", "last_token", "digest", "moved", "revoked", "answer")
_OWN = ("worker", "st", *LINE, "last_token", "last_digest", "first_data")
_COPIED = tuple(name for name in COLUMNS if name not in ("id", "worker"))
_CHANGED = (*_COPIED, *_OWN)

_INTO_OUTBOX = f"(seq, at_us, {', '.join(_RECORD)}) VALUES ".encode()
_INTO_TOMBSTONE = f"(seq, at_us, {', '.join(_STONE)}) VALUES ".encode()
BURIED_AGAIN = (
    " ON DUPLICATE KEY UPDATE "
    + ", ".join(f"{name} = VALUES({name})" for name in ("seq", "at_us", *_STONE) if name != "id")
).encode()
"""A job has one tombstone, that of its last end."""


class Ledger(ledger.Ledger[Row]):
    """Writes statements as text."""

    def __init__(self, store: Store, session: Session, now_us: int) -> None:
        super().__init__(now_us)
        self._store = store
        self._session = session

    async def flush(self) -> None:
        """Write it all."""
        t = self._store.tables
        first = (
            await self._store.next_places(self._session) if self._records or self._forgotten or self._unplaced else 0
        )
        for place, unplaced in enumerate(self._unplaced, first):
            unplaced.seq = place
        records = [row(seq, self.now_us, *record) for seq, record in enumerate(self._records, first)]
        stones = [
            row(seq, self.now_us, *stone)
            for seq, stone in enumerate((*self._stones, *self._forgotten), first)
            if stone is not None
        ]
        statements = [f"INSERT INTO {t.outbox} ".encode() + _INTO_OUTBOX + b", ".join(some) for some in chunks(records)]
        statements += [
            f"INSERT INTO {t.tombstone} ".encode() + _INTO_TOMBSTONE + b", ".join(some) + BURIED_AGAIN
            for some in chunks(stones)
        ]
        statements += self._store.counting(self._moved)
        if self.gone:
            statements += self._session.dialect.removal(t.job, self.gone)
        statements += self._changes()
        for statement in statements:
            await self._session.script(statement)

    def _changes(self) -> Iterator[bytes]:
        names = ("id", *_CHANGED)
        assignments = ", ".join(f"old.{name} = new.{name}" for name in _CHANGED).encode()
        for some in chunks([keyed(*_values(changed)) for changed in self._changed]):
            given = self._session.dialect.given(names, some)
            yield b"UPDATE %b AS new STRAIGHT_JOIN %b AS old FORCE INDEX (PRIMARY) ON old.id = new.id SET %b" % (
                given,
                self._store.tables.job.encode(),
                assignments,
            )


def _values(row: Row) -> Sequence[Any]:
    job = row.job
    place = standing(job, row.st, row.seq)
    own = (job.worker or "", row.st, *place, row.last_token, row.last_digest, row.first_data)
    return (job.id, *(getattr(job, name) for name in _COPIED), *own)
