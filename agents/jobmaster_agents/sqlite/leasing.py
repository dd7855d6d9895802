"""What happens to leases besides settling: extend, release, reap."""

import sqlite3
from collections.abc import Sequence

import msgspec

from jobmaster.contracts import decisions
from jobmaster.contracts.values import ExtendAnswer, Extension, ReapReport, Release, SettleAnswer
from jobmaster.ledger import distinct
from jobmaster.settling import Ended
from jobmaster.telemetry.probes import probe
from jobmaster_agents.sqlite.ledger import Ledger
from jobmaster_agents.sqlite.rows import Row
from jobmaster_agents.sqlite.settling import repeated
from jobmaster_agents.sqlite.store import Store, as_json
from jobmaster_agents.sqlite.tables import LEASED


class Leasing:
    """The verbs `extend`, `release` and `reap` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        t = store.tables
        self._prolong = f"""
            UPDATE {t.job} SET leased_until_us = ?1 WHERE rowid IN (
                SELECT j.rowid FROM json_each(?2) AS e CROSS JOIN {t.job} AS j
                WHERE j.id = e.value ->> 0 AND j.st = {LEASED} AND (j.epoch << 32 | j.claim_seq) = e.value ->> 1
                    AND j.leased_until_us > ?3 AND ?4 = (SELECT incarnation FROM {t.meta}))"""
        self._report = f"""
            UPDATE {t.job} SET leased_until_us = ?, version = ?, started_us = ?, first_started_us = ?, progress = ?,
                progress_note = ?
            WHERE id = ?"""
        self._cancelled = f"SELECT last_token, digest FROM {t.tombstone} WHERE id = ?"

    def extend(self, connection: sqlite3.Connection, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        """In the writer's transaction. Leases that report nothing are prolonged together, which is nearly all."""
        now_us = self._store.now_us()
        bare = [item for item in items if not item.started and item.progress is None]
        if len(bare) == len(items) == len({item.id for item in items}):
            leases = msgspec.json.encode([(item.id, item.token) for item in bare]).decode()
            values = (now_us + ttl_us, leases, now_us, self._store.incarnation)
            if connection.execute(self._prolong, values).rowcount == len(items):
                return [ExtendAnswer.HELD] * len(items)
        self._store.check(connection)
        answers = [ExtendAnswer.LOST] * len(items)
        for run in distinct(enumerate(items)):
            rows = self._store.by_id(connection, [item.id for _, item in run])
            for at, item in run:
                answers[at] = self._one(connection, rows.get(item.id), item, now_us, ttl_us)
        return answers

    def _one(
        self, connection: sqlite3.Connection, row: Row | None, item: Extension, now_us: int, ttl_us: int
    ) -> ExtendAnswer:
        if row is None or row.st != LEASED or row.job.token != item.token:
            cancelled = connection.execute(self._cancelled, (item.id,)).fetchone()
            lost = cancelled != (item.token, decisions.CANCELLED_DIGEST)
            return ExtendAnswer.LOST if lost else ExtendAnswer.CANCELLED
        if row.leased_until_us <= now_us:
            return ExtendAnswer.LOST
        job = decisions.extended(row.job, item, now_us)
        reported = (job.version, job.started_us, job.first_started_us, job.progress, job.progress_note)
        connection.execute(self._report, (now_us + ttl_us, *reported, job.id))
        return ExtendAnswer.HELD

    def release(self, connection: sqlite3.Connection, items: Sequence[Release]) -> Ended:
        """In the writer's transaction."""
        self._store.check(connection)
        ended = Ended([SettleAnswer.ACCEPTED] * len(items))
        now_us = self._store.now_us()
        for run in distinct(enumerate(items)):
            rows = self._store.by_id(connection, [item.id for _, item in run])
            ledger = Ledger(self._store, connection, now_us)
            for at, item in run:
                row, digest = rows.get(item.id), decisions.release_digest(item)
                if row is None or row.st != LEASED or row.job.token != item.token:
                    ended.answers[at] = repeated(self._store, connection, item.id, item.token, digest)
                else:
                    ledger.end_lease(row, *decisions.released(row.job, item, now_us), digest)
            ledger.flush()
            ended.take(ledger)
        return ended

    def reap(
        self, connection: sqlite3.Connection, limit: int, dead: frozenset[str], expired: bool
    ) -> tuple[ReapReport, Ledger]:
        """In the writer's transaction."""
        now_us = self._store.now_us()
        ledger = Ledger(self._store, connection, now_us)
        crashed: list[str] = []
        rows = self._store.select(
            connection,
            f"WHERE st = {LEASED} AND ((? AND leased_until_us <= ?) OR worker IN (SELECT value FROM json_each(?)))"
            " LIMIT ?",
            int(expired),
            now_us,
            as_json(dead),
            limit,
        )
        for row in rows:
            job, run = decisions.lapsed(row.job, now_us)
            ledger.end_lease(row, job, run, decisions.LAPSED_DIGEST)
            if job.terminal:
                crashed.append(job.id)
        ledger.flush()
        if rows:
            probe("lease_lapsed", len(rows))
        report = ReapReport(requeued=len(rows) - len(crashed), crashed=tuple(crashed), more=len(rows) == limit)
        return report, ledger
