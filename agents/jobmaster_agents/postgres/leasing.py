"""extend and reap: leases prolonged, and those that ran out ended."""

from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import ExtendAnswer, Extension, ReapReport, StoreMode
from jobmaster.ledger import distinct
from jobmaster.telemetry.probes import probe
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.ledger import Ledger
from jobmaster_agents.postgres.rows import Row
from jobmaster_agents.postgres.sparing import Sparing
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import FENCE, IS_LEASED, LEASED, NOW_US


class Leasing:
    """The verbs `extend` and `reap` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._looks = Sparing()
        t = store.tables
        # Whoever holds a row's lock is settling or ending that lease: it is not waited for, as those behind it in the
        # batch would then lose theirs.
        self.prolong = f"""
            UPDATE {t.job} AS j SET leased_until_us = {NOW_US} + $1 WHERE {IS_LEASED} AND j.ctid = ANY (ARRAY(
                SELECT held.at FROM unnest($2::uuid[], $3::bigint[]) AS e (id, token) CROSS JOIN {t.meta} AS m
                CROSS JOIN LATERAL (
                    SELECT j.ctid AS at FROM {t.job} AS j
                    WHERE j.id = e.id AND {IS_LEASED} AND {FENCE} = e.token AND j.leased_until_us > {NOW_US}
                    FOR NO KEY UPDATE SKIP LOCKED
                ) AS held WHERE m.incarnation = $4
            )) RETURNING j.id::text"""
        # As to the ids, see `ledger`.
        self._report = f"""
            UPDATE {t.job} AS j SET leased_until_us = {NOW_US} + $1, version = new.version, started_us = new.started,
                first_started_us = new.first_started, progress = new.progress, progress_note = new.note
            FROM unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[], $7::text[])
                AS new (id, version, started, first_started, progress, note)
            WHERE j.id = new.id AND j.id = ANY ($2::uuid[])"""
        self.lapsed = f"""
            WHERE {IS_LEASED} AND id = ANY (ARRAY(
                SELECT id FROM {t.job} WHERE st = {LEASED}
                    AND (($1 AND leased_until_us <= {NOW_US}) OR worker = ANY ($2::text[])) LIMIT $3
            )) AND (($1 AND leased_until_us <= {NOW_US}) OR worker = ANY ($2::text[]))
            ORDER BY id FOR UPDATE SKIP LOCKED"""

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        """Leases that report nothing are prolonged together, which is nearly all."""
        if not items:
            return []
        bare = [item for item in items if not item.started and item.progress is None]
        answers = [ExtendAnswer.LOST] * len(items)
        rest = list(range(len(items)))
        if len({item.id for item in items}) == len(items) and bare:
            bare.sort(key=lambda item: item.id)
            found = await self._store.database.fetch(
                self.prolong,
                ttl_us,
                [item.id for item in bare],
                [item.token for item in bare],
                self._store.incarnation,
                after_commit="extend.after_commit",
            )
            held = {row[0] for row in found}
            for at, item in enumerate(items):
                if item.id in held:
                    answers[at] = ExtendAnswer.HELD
            rest = [at for at in rest if items[at].id not in held]
        if rest:
            await self._one_by_one(items, rest, ttl_us, answers)
        return answers

    async def _one_by_one(
        self, items: Sequence[Extension], rest: Sequence[int], ttl_us: int, answers: list[ExtendAnswer]
    ) -> None:
        async def extend(connection: Connection) -> dict[int, ExtendAnswer]:
            given: dict[int, ExtendAnswer] = {}
            meta = await self._store.check(connection)
            for run in distinct((at, items[at]) for at in rest):
                ids = [item.id for _, item in run]
                found = await self._store.select(
                    connection, "WHERE id = ANY ($1::uuid[]) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED", ids
                )
                rows = {row.job.id: row for row in found}
                there = set(ids) if len(rows) == len(ids) else await self._there(connection, ids)
                cancelled = await self._cancelled(connection, ids)
                changed: list[Row] = []
                for at, item in run:
                    if item.id in there and item.id not in rows:
                        given[at] = ExtendAnswer.BUSY
                    else:
                        given[at] = self._decide(rows.get(item.id), item, meta.now_us, cancelled, changed)
                if changed:
                    jobs = [row.job for row in changed]
                    await connection.execute(
                        self._report,
                        ttl_us,
                        [job.id for job in jobs],
                        [job.version for job in jobs],
                        [job.started_us for job in jobs],
                        [job.first_started_us for job in jobs],
                        [job.progress for job in jobs],
                        [job.progress_note for job in jobs],
                    )
            return given

        given = await self._store.database.write(extend, after_commit="extend.after_commit")
        for at, answer in given.items():
            answers[at] = answer

    def _decide(
        self,
        row: Row | None,
        item: Extension,
        now_us: int,
        cancelled: dict[str, int],
        changed: list[Row],
    ) -> ExtendAnswer:
        if row is None or row.st != LEASED or row.job.token != item.token:
            return ExtendAnswer.CANCELLED if cancelled.get(item.id) == item.token else ExtendAnswer.LOST
        if row.leased_until_us <= now_us:
            return ExtendAnswer.LOST
        row.job = decisions.extended(row.job, item, now_us)
        changed.append(row)
        return ExtendAnswer.HELD

    async def _there(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a row, locked by others or not."""
        text = f"SELECT id::text FROM {self._store.tables.job} WHERE id = ANY ($1::uuid[])"
        return {row[0] for row in await connection.fetch(text, ids)}

    async def _cancelled(self, connection: Connection, ids: Sequence[str]) -> dict[str, int]:
        """The tokens of runs that were ended by cancelling their job."""
        text = (
            f"SELECT id::text, last_token FROM {self._store.tables.tombstone} "
            f"WHERE id = ANY ($1::uuid[]) AND digest = {decisions.CANCELLED_DIGEST}"
        )
        return {row[0]: row[1] for row in await connection.fetch(text, ids)}

    async def reap(self, limit: int, dead: frozenset[str], expired: bool) -> tuple[ReapReport, Ledger]:
        async def reap(connection: Connection) -> tuple[ReapReport, Ledger]:
            meta = await self._store.meta(connection)
            ledger = Ledger(self._store, connection, meta.now_us)
            if meta.mode is StoreMode.QUARANTINED:
                return ReapReport(), ledger
            rows = await self._lapsed(connection, expired, dead, limit)
            crashed: list[str] = []
            for row in rows:
                job, run = decisions.lapsed(row.job, ledger.now_us)
                ledger.end_lease(row, job, run, decisions.LAPSED_DIGEST)
                if job.terminal:
                    crashed.append(job.id)
            await ledger.flush()
            report = ReapReport(requeued=len(rows) - len(crashed), crashed=tuple(crashed), more=len(rows) == limit)
            return report, ledger

        report, ledger = await self._store.database.write(reap, after_commit="reap.after_commit")
        if report.requeued or report.crashed:
            probe("lease_lapsed", report.requeued + len(report.crashed))
        return report, ledger

    async def _lapsed(self, connection: Connection, expired: bool, dead: frozenset[str], limit: int) -> list[Row]:
        """Locked. Without any that are known to be dead a look may be put off."""
        if not dead and not (expired and self._looks.due()):
            return []
        with self._looks.look():
            rows = await self._store.select(connection, self.lapsed, expired, list(dead), limit)
        if len(rows) == limit:
            self._looks.forget()
        return rows
