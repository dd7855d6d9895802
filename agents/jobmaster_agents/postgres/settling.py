"""settle and release: outcomes of runs, leases given back, and what is left of their jobs.

Success and failure, which need nothing of the policy, are written for the whole batch by one statement, `settle_text`.
All other outcomes, and whatever that statement passed over, go through the decisions.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import structlog

from jobmaster import settling
from jobmaster.contracts.values import HistoryTables, Settlement
from jobmaster.model.errors import Refused
from jobmaster.model.outcome import RunOutcome
from jobmaster.remembered import Remembered
from jobmaster.settling import Ended
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.ledger import Ledger
from jobmaster_agents.postgres.rows import Row
from jobmaster_agents.postgres.settle_text import BARE, FULL, REMEMBERED, settle_text
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import literal, numbers, same

_OF_THIS_BATCH = ("22", "23", "40")
"""Classes of SQLSTATE: a value, a constraint, a deadlock."""
DIRECT_AGAIN_SECONDS = 30.0
"""After the history could not be written for a reason that may last, how long all goes through the outbox."""

_UNIQUE_VIOLATION = "23505"
_LOCKED = """
    SELECT EXISTS (
        SELECT 1 FROM unnest($1::text[]) AS name LEFT JOIN pg_locks AS l
            ON l.relation = to_regclass(name)
            AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        WHERE to_regclass(name) IS NULL OR l.mode IS NOT NULL
    )"""
"""SQL: whether one of these tables is not there, or somebody holds or wants it in a mode that keeps writers out."""
CAREFUL_SECONDS = 1.0
"""After a batch with a job that had ended here before, how long every batch is written as if it held one."""

_log = structlog.get_logger("jobmaster.agents.postgres")


class _Texts:
    """The statement of one way to write ends, by what they bring, and by what is known of them."""

    def __init__(self, store: Store, history: HistoryTables | None = None, also: Sequence[str] = ()) -> None:
        self._texts = {
            (bare, plain): settle_text(store, BARE if bare else FULL, history, also, plain=plain)
            for bare in (True, False)
            for plain in (True, False)
        }

    def of(self, *, bare: bool, plain: bool) -> str:
        return self._texts[bare, plain]


class Settling(settling.Settling[Connection]):
    """The verbs `settle` and `release` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.bare = settle_text(store, BARE)
        self.full = settle_text(store, FULL)
        self._told = _Texts(store, also=REMEMBERED)
        self.remembered = Remembered()
        self._direct: _Texts | None = None
        self._direct_after = 0.0
        self._history: HistoryTables | None = None
        self._in_doubt = False
        """The history was not to be had when it was last written."""
        self._careful_until = 0.0

    def write_history(self, tables: HistoryTables) -> None:
        """From now on ends that concern nobody else are written there instead of the outbox."""
        self._direct = _Texts(self._store, tables)
        self._history = tables

    async def _settle_bulk(self, items: Sequence[Settlement]) -> list[str]:
        bare = all(map(_is_bare, items))
        values = self._values(items, bare)
        if self._direct is not None and await self._may_write_history():
            try:
                return [row[0] for row in await self._write(self._direct, values, bare, patient=False)]
            except Refused as error:
                # Whatever it is about the history, it must not keep an outcome from being settled; and a row that it
                # does not take is found and quarantined on its way out of the outbox.
                if not isinstance(error.__cause__, asyncpg.PostgresError):
                    raise
                if not error.__cause__.sqlstate.startswith(_OF_THIS_BATCH):
                    self._in_doubt = True
                    self._direct_after = time.monotonic() + DIRECT_AGAIN_SECONDS
                    then = f"ends go through the outbox for {DIRECT_AGAIN_SECONDS:g} s"
                    _log.warning("postgres.history_not_written", agent=self._store.agent, error=str(error), then=then)
        found = await self._write(self._told, values, bare)
        self.remembered.add(items, found)
        return [row[0] for row in found]

    async def _may_write_history(self) -> bool:
        """Whether it may be tried. Once it was not to be had it is asked about first, so that whoever keeps it locked
        holds up one settle, and not one every while."""
        if time.monotonic() < self._direct_after:
            return False
        if self._in_doubt:
            assert self._history is not None
            names = [self._history.job, self._history.history, self._history.run]
            [[self._in_doubt]] = await self._store.database.ask(_LOCKED, names)
            if self._in_doubt:
                self._direct_after = time.monotonic() + DIRECT_AGAIN_SECONDS
        return not self._in_doubt

    async def _write(self, texts: _Texts, values: Sequence[Any], bare: bool, *, patient: bool = True) -> list[Any]:
        """First as if none of them had ever ended here; where one had, nothing was written, and it is asked of each."""
        if time.monotonic() >= self._careful_until:
            try:
                return await self._run(texts.of(bare=bare, plain=True), values, patient=patient)
            except Refused as error:
                if getattr(error.__cause__, "sqlstate", None) != _UNIQUE_VIOLATION:
                    raise
                self._careful_until = time.monotonic() + CAREFUL_SECONDS
        return await self._run(texts.of(bare=bare, plain=False), values, patient=patient)

    async def _run(self, text: str, values: Sequence[Any], *, patient: bool = True) -> list[Any]:
        return await self._store.database.fetch(
            text,
            *values,
            before_commit="settle.before_commit",
            after_commit="settle.after_commit",
            patient=patient,
        )

    def statement(self, item: Settlement) -> tuple[str, list[Any]]:
        """What settles one success or failure in whatever transaction it is run, and gives one row if it did."""
        bare = _is_bare(item)
        return self.bare if bare else self.full, self._values([item], bare)

    def _values(self, items: Sequence[Settlement], bare: bool) -> list[Any]:
        values: list[Any] = [
            self._store.incarnation,
            literal([s.id for s in items]),
            numbers([s.token for s in items]),
            numbers([s.digest() for s in items]),
            same([s.worker for s in items]),
            same([s.host for s in items]),
            numbers([s.started_us for s in items]),
            numbers([s.finished_us for s in items]),
            [s.result for s in items],
        ]
        if not bare:
            values += [
                same([s.outcome for s in items]),
                [s.reason for s in items],
                [s.error for s in items],
                [s.detail for s in items],
                [s.progress for s in items],
                [s.progress_note for s in items],
            ]
        return values

    async def _transact(
        self,
        change: Callable[[Connection], Awaitable[Ended]],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
    ) -> Ended:
        return await self._store.database.write(change, before_commit=before_commit, after_commit=after_commit)

    async def _checked_now_us(self, connection: Connection) -> int:
        return (await self._store.check(connection)).now_us

    async def _locked(self, connection: Connection, ids: Sequence[str]) -> dict[str, Row]:
        return await self._store.locked(connection, ids)

    def _ledger(self, connection: Connection, now_us: int) -> Ledger:
        return Ledger(self._store, connection, now_us)

    async def _ends(self, connection: Connection, ids: Sequence[str]) -> list[Any]:
        t = self._store.tables
        return await connection.fetch(
            f"SELECT id::text, last_token, last_digest FROM {t.job} WHERE id = ANY ($1::uuid[]) "
            f"UNION ALL SELECT id::text, last_token, digest FROM {t.tombstone} WHERE id = ANY ($1::uuid[])",
            ids,
        )


def _is_bare(item: Settlement) -> bool:
    return item.outcome is RunOutcome.SUCCEEDED and item.error is None and item.detail is None and item.progress is None
