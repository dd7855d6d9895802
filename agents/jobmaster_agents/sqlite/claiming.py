"""claim: the next ready jobs of some lanes, leased to one worker."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from jobmaster.contracts.values import StoreMode
from jobmaster.model.job import Job
from jobmaster_agents.sqlite.ledger import Ledger
from jobmaster_agents.sqlite.rows import PACKED, Row, unpack
from jobmaster_agents.sqlite.store import Store, as_json
from jobmaster_agents.sqlite.tables import LEASED, READY

EXPIRED_AT_ONCE = 500


class Claimed:
    """What a claim brought out of the transaction, to be read outside of it."""

    __slots__ = ("gone", "packed", "rowids")

    def __init__(self) -> None:
        self.packed: list[bytes] = []
        self.rowids: list[str] = []
        self.gone: list[str] = []


class Claiming:
    """The verb `claim` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        t = store.tables
        # The index is named: with stale statistics the planner is tempted by others, and each of them sorts.
        self.choose = f"""
            SELECT CAST(group_concat({PACKED}) AS BLOB), json_group_array(rowid), count(*),
                (SELECT incarnation || mode FROM {t.meta}),
                EXISTS (SELECT 1 FROM {t.job} WHERE expires_us <= ?3 AND expires_us IS NOT NULL AND st <> {LEASED})
            FROM (SELECT rowid, * FROM {t.job} INDEXED BY {t.job}_ready
                WHERE st = {READY} AND lane = ?1 AND handler IN (SELECT value FROM json_each(?2))
                    AND (expires_us IS NULL OR expires_us > ?3)
                    AND NOT EXISTS (SELECT 1 FROM {t.lane} WHERE name = ?1 AND paused)
                    AND (SELECT mode FROM {t.meta}) = '{StoreMode.OPEN}'
                ORDER BY priority, seq LIMIT ?4)"""
        self._lease = f"""
            UPDATE {t.job} SET st = {LEASED}, worker = ?1, leased_until_us = ?2, claim_seq = claim_seq + 1,
                version = version + 1, started_us = NULL
            WHERE rowid IN (SELECT value FROM json_each(?3))"""

    def claim(
        self,
        connection: sqlite3.Connection,
        worker: str,
        quotas: Mapping[str, int],
        handlers: frozenset[str],
        limit: int,
        ttl_us: int,
    ) -> Claimed:
        """In the writer's transaction."""
        now_us = self._store.now_us()
        claimed, left, known = Claimed(), limit, _known(handlers)
        expired = False
        counts: Counter[tuple[str, int]] = Counter()
        for lane, quota in quotas.items():
            if left <= 0 or quota <= 0:
                continue
            packed, rowids, count, state, some_expired = connection.execute(
                self.choose, (lane, known, now_us, min(quota, left))
            ).fetchone()
            if state != f"{self._store.incarnation}{StoreMode.OPEN}":
                self._store.check(connection)
                return claimed
            expired |= bool(some_expired)
            if count:
                claimed.packed.append(packed)
                claimed.rowids.append(rowids)
                left -= count
                connection.execute(self._lease, (worker, now_us + ttl_us, rowids))
                counts[lane, READY] -= count
                counts[lane, LEASED] += count
        if counts:
            self._store.count(connection, counts)
        if expired:
            ledger = Ledger(self._store, connection, now_us)
            expire_waiting(self._store, connection, ledger, EXPIRED_AT_ONCE)
            ledger.flush()
            claimed.gone = ledger.gone
        return claimed

    def read(self, claimed: Claimed, worker: str) -> list[Job] | None:
        """The jobs, outside of the transaction; None if they have to be read row by row."""
        return unpack(b"[" + b",".join(claimed.packed) + b"]", self._store.agent, worker)

    def read_again(self, connection: sqlite3.Connection, claimed: Claimed) -> list[Job]:
        """The same jobs, row by row."""
        rows: list[Row] = []
        for rowids in claimed.rowids:
            rows += self._store.select(
                connection,
                "WHERE rowid IN (SELECT value FROM json_each(?)) ORDER BY priority, seq",
                rowids,
            )
        return [row.job for row in rows]


@lru_cache(maxsize=64)
def _known(handlers: frozenset[str]) -> str:
    return as_json(sorted(handlers))


def expire_waiting(store: Store, connection: sqlite3.Connection, ledger: Ledger, limit: int) -> int:
    """End up to `limit` waiting jobs that may not be started any more; how many."""
    rows = store.select(
        connection,
        f"WHERE expires_us <= ? AND expires_us IS NOT NULL AND st <> {LEASED} ORDER BY expires_us LIMIT ?",
        ledger.now_us,
        limit,
    )
    for row in rows:
        ledger.expire(row)
    return len(rows)
