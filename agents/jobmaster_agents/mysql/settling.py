"""settle and release: outcomes of runs, leases given back, and what is left of their jobs.

Success and failure, which need nothing of the policy, are written for the whole batch by statements that say what
`decisions.settled` does. All other outcomes, and whatever those passed over, go through the decisions.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import structlog

from jobmaster import settling
from jobmaster.contracts.values import HistoryTables, Settlement
from jobmaster.model.errors import Refused
from jobmaster.remembered import Remembered
from jobmaster.settling import Ended
from jobmaster_agents.mysql.connection import error_number
from jobmaster_agents.mysql.ledger import Ledger
from jobmaster_agents.mysql.rows import Row
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.settle_text import HistoryText, OutboxText
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import ALL_LANES, LEASED

_OF_THIS_BATCH = frozenset({1048, 1062, 1213, 1264, 1265, 1366, 1406, 3819, 4025})
"""A value, a key that is there already, a constraint, a deadlock."""
DIRECT_AGAIN_SECONDS = 30.0
"""After the history could not be written for a reason that may last, how long all goes through the outbox."""

T = TypeVar("T")

_log = structlog.get_logger("jobmaster.agents.mysql")


class PassedOverError(Exception):
    """A batch can't go straight into the history."""


class Settling(settling.Settling[Session]):
    """The verbs `settle` and `release` on one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._outbox = OutboxText(store)
        self.remembered = Remembered()
        self._direct: HistoryText | None = None
        self._direct_after = 0.0

    def write_history(self, tables: HistoryTables) -> None:
        """From now on ends that concern nobody else are written there instead of the outbox."""
        self._direct = HistoryText(self.store, tables)

    async def _settle_bulk(self, items: Sequence[Settlement]) -> list[str]:
        if self._direct is not None and time.monotonic() >= self._direct_after:
            try:
                return await self._write(self._into_history, items, patient=False)
            except PassedOverError:
                pass
            except Refused as error:
                # Whatever it is about the history, it must not keep an outcome from being settled; and a row that it
                # does not take is found and quarantined on its way out of the outbox.
                number = error_number(error.__cause__)
                if number == 0:
                    raise
                if number not in _OF_THIS_BATCH:
                    self._direct_after = time.monotonic() + DIRECT_AGAIN_SECONDS
                    then = f"ends go through the outbox for {DIRECT_AGAIN_SECONDS:g} s"
                    _log.warning("mysql.history_not_written", agent=self.store.agent, error=str(error), then=then)
        found = await self._write(self._into_outbox, items)
        self.remembered.add(items, found)
        return [row[0] for row in found]

    async def _write(
        self,
        way: Callable[[Session, Sequence[Settlement]], Awaitable[T]],
        items: Sequence[Settlement],
        *,
        patient: bool = True,
    ) -> T:
        return await self.store.database.write(
            lambda session: way(session, items),
            before_commit="settle.before_commit",
            after_commit="settle.after_commit",
            patient=patient,
        )

    async def _into_history(self, session: Session, items: Sequence[Settlement]) -> list[str]:
        """All of them, or `PassedOverError`: one is stale, concerns others, or is known to the master."""
        assert self._direct is not None
        statements = self._direct.record(session.dialect, items)
        meta, first, results = await self.store.checked_places(session, *statements)
        *written, live = results
        if sum(result.affected for result in written) < len(items) or self._direct.concerns(live.rows, items):
            raise PassedOverError
        counted = self.store.counting({(ALL_LANES, LEASED): -len(items)})
        await session.script(*self._direct.finish(session.dialect, items, first, meta.now_us), *counted)
        return [item.id for item in items]

    async def _into_outbox(self, session: Session, items: Sequence[Settlement]) -> list[Any]:
        """What `Remembered` wants to know of those that were leased."""
        _, first, _ = await self.store.checked_places(session)
        recorded = 0
        for statement in self._outbox.record(session.dialect, items, first):
            [result] = await session.script(statement)
            recorded += result.affected
        if not recorded:
            return []
        last = first + len(items) - 1
        counted = self.store.counting({(ALL_LANES, LEASED): -recorded})
        *_, found = await session.script(*counted, *self._outbox.finish(first, last))
        return found.rows

    async def _transact(
        self,
        change: Callable[[Session], Awaitable[Ended]],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
    ) -> Ended:
        return await self.store.database.write(change, before_commit=before_commit, after_commit=after_commit)

    async def _checked_now_us(self, connection: Session) -> int:
        return (await self.store.check(connection)).now_us

    async def _locked(self, connection: Session, ids: Sequence[str]) -> dict[str, Row]:
        return await self.store.locked(connection, ids)

    def _ledger(self, connection: Session, now_us: int) -> Ledger:
        return Ledger(self.store, connection, now_us)

    async def _ends(self, connection: Session, ids: Sequence[str]) -> list[Any]:
        t = self.store.tables
        return await connection.fetch(
            f"SELECT id, last_token, last_digest FROM {t.job} FORCE INDEX (PRIMARY) WHERE id IN ? "
            f"UNION ALL SELECT id, last_token, digest FROM {t.tombstone} FORCE INDEX (PRIMARY) WHERE id IN ?",
            ids,
            ids,
        )
