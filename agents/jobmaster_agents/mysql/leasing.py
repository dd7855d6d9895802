"""extend and reap: leases prolonged, and those that ran out ended."""

from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.mysql_text import keyed, sql
from jobmaster.contracts.values import ExtendAnswer, Extension, ReapReport, StoreMode
from jobmaster.ledger import distinct
from jobmaster.telemetry.probes import probe
from jobmaster_agents.mysql.ledger import Ledger
from jobmaster_agents.mysql.rows import Row
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import FENCE, LEASED, NOW_US

_REPORTED = ("version", "started_us", "first_started_us", "progress", "progress_note")


class Leasing:
    """The verbs `extend` and `reap` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        t = store.tables
        # Whoever holds a row's lock is settling or ending that lease: it is not waited for, as those behind it in the
        # batch would then lose theirs.
        self._kept = (
            f" AS e STRAIGHT_JOIN {t.job} AS j FORCE INDEX (PRIMARY) ON j.id = e.id "
            f"WHERE j.st = {LEASED} AND {FENCE} = e.token AND j.leased_until_us > {NOW_US} FOR UPDATE SKIP LOCKED"
        ).encode()
        self._prolong = f"UPDATE {t.job} FORCE INDEX (PRIMARY) SET leased_until_us = {NOW_US} + ? WHERE id IN ?"
        self._report = (
            f" AS new STRAIGHT_JOIN {t.job} AS j FORCE INDEX (PRIMARY) ON j.id = new.id "
            f"SET j.leased_until_us = {NOW_US} + ?, " + ", ".join(f"j.{name} = new.{name}" for name in _REPORTED)
        )
        due = f"((? AND j.leased_until_us <= {NOW_US}) OR j.worker IN ?)"
        self._lapsed = (
            f"SELECT j.id FROM {t.job} AS j FORCE INDEX ({t.prefix}job_line) WHERE j.st = {LEASED} AND {due} LIMIT ?"
        )
        self._still = (
            f"FORCE INDEX (PRIMARY) WHERE j.id IN ? AND j.st = {LEASED} AND {due} ORDER BY j.id FOR UPDATE SKIP LOCKED"
        )

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        """Leases that report nothing are prolonged together, which is nearly all."""
        if not items:
            return []
        bare = [item for item in items if not item.started and item.progress is None]
        answers = [ExtendAnswer.LOST] * len(items)
        rest = list(range(len(items)))
        if len({item.id for item in items}) == len(items) and bare:
            held = await self._store.database.write(
                lambda session: self._extend_bare(session, sorted(bare, key=lambda item: item.id), ttl_us),
                after_commit="extend.after_commit",
            )
            for at, item in enumerate(items):
                if item.id in held:
                    answers[at] = ExtendAnswer.HELD
            rest = [at for at in rest if items[at].id not in held]
        if rest:
            await self._one_by_one(items, rest, ttl_us, answers)
        return answers

    async def _extend_bare(self, session: Session, items: Sequence[Extension], ttl_us: int) -> set[str]:
        """Those that were kept."""
        await self._store.check(session)
        given = session.dialect.given(("id", "token"), [keyed(item.id, item.token) for item in items])
        [found] = await session.script(b"SELECT j.id FROM %b%b" % (given, self._kept))
        held = [job_id for (job_id,) in found.rows]
        if held:
            await session.execute(self._prolong, ttl_us, held)
        return set(held)

    async def _one_by_one(
        self, items: Sequence[Extension], rest: Sequence[int], ttl_us: int, answers: list[ExtendAnswer]
    ) -> None:
        async def extend(session: Session) -> dict[int, ExtendAnswer]:
            given: dict[int, ExtendAnswer] = {}
            meta = await self._store.check(session)
            for run in distinct((at, items[at]) for at in rest):
                ids = [item.id for _, item in run]
                rows = await self._store.locked(session, ids, skip=True)
                there = set(ids) if len(rows) == len(ids) else await self._there(session, ids)
                cancelled = await self._cancelled(session, ids)
                changed: list[Row] = []
                for at, item in run:
                    if item.id in there and item.id not in rows:
                        given[at] = ExtendAnswer.BUSY
                    else:
                        given[at] = self._decide(rows.get(item.id), item, meta.now_us, cancelled, changed)
                if changed:
                    reports = [keyed(*(getattr(row.job, name) for name in ("id", *_REPORTED))) for row in changed]
                    table = session.dialect.given(("id", *_REPORTED), reports)
                    await session.script(b"UPDATE %b%b" % (table, sql(self._report, ttl_us)))
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

    async def _there(self, session: Session, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a row, locked by others or not."""
        text = f"SELECT id FROM {self._store.tables.job} FORCE INDEX (PRIMARY) WHERE id IN ?"
        return {row[0] for row in await session.fetch(text, ids)}

    async def _cancelled(self, session: Session, ids: Sequence[str]) -> dict[str, int]:
        """The tokens of runs that were ended by cancelling their job."""
        text = (
            f"SELECT id, last_token FROM {self._store.tables.tombstone} "
            f"FORCE INDEX (PRIMARY) WHERE id IN ? AND digest = {decisions.CANCELLED_DIGEST}"
        )
        return {row[0]: row[1] for row in await session.fetch(text, ids)}

    async def reap(self, limit: int, dead: frozenset[str], expired: bool) -> tuple[ReapReport, Ledger]:
        async def reap(session: Session) -> tuple[ReapReport, Ledger]:
            meta = await self._store.meta(session)
            ledger = Ledger(self._store, session, meta.now_us)
            if meta.mode is StoreMode.QUARANTINED:
                return ReapReport(), ledger
            # Found without locks, then looked at again under them.
            found = await session.fetch(self._lapsed, expired, dead, limit)
            ids = sorted(job_id for (job_id,) in found)
            rows = await self._store.select(session, self._still, ids, expired, dead) if ids else []
            crashed: list[str] = []
            for row in rows:
                job, run = decisions.lapsed(row.job, ledger.now_us)
                ledger.end_lease(row, job, run, decisions.LAPSED_DIGEST)
                if job.terminal:
                    crashed.append(job.id)
            await ledger.flush()
            report = ReapReport(requeued=len(rows) - len(crashed), crashed=tuple(crashed), more=len(found) == limit)
            return report, ledger

        report, ledger = await self._store.database.write(reap, after_commit="reap.after_commit")
        if report.requeued or report.crashed:
            probe("lease_lapsed", report.requeued + len(report.crashed))
        return report, ledger
