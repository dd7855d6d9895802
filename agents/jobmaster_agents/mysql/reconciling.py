"""Reconciling a store that is not what it was: quarantine, raise or remove its rows, then make it a new one."""

from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Control, Rebase, RebaseKind, Release, StoreMode
from jobmaster.ledger import distinct
from jobmaster.model.errors import Refused
from jobmaster_agents.mysql import outbox
from jobmaster_agents.mysql.ledger import Ledger
from jobmaster_agents.mysql.rows import Row
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import ALL_LANES, COUNTS, LEASED


async def name_store(store: Store, session: Session) -> None:
    """A store whose rows were all deleted gets a name again: another one, so that nobody takes it for what it was."""
    t = store.tables
    await session.execute(
        f"INSERT INTO {t.meta} (one, incarnation, mode) VALUES (1, ?, 'open') ON DUPLICATE KEY UPDATE one = 1",
        uuid4().hex,
    )


async def quarantine(store: Store, session: Session, change: Control) -> None:
    """Close the store, if it is the one that is meant."""
    t = store.tables
    await _locked_meta(store, session, "FOR UPDATE")
    meta = await store.meta(session)
    if change.incarnation not in (None, meta.incarnation):
        raise Refused(
            f"agent {store.agent!r}: the store is incarnation {meta.incarnation} by now, not {change.incarnation}, and "
            f"stays {meta.mode}; look at it again"
        )
    await session.execute(f"UPDATE {t.meta} SET mode = ?", StoreMode.QUARANTINED.value)
    # The row of `meta` is locked: of two who raise the mark, the later one sees what the first did.
    await outbox.raise_mark(store, session, change.mark)


async def rebase(store: Store, session: Session, items: Sequence[Rebase]) -> tuple[list[bool], list[str]]:
    """Whether each was changed, and the jobs that are here no more."""
    # Nobody adopts the store while this goes on: rows of an open one must not change their epoch.
    await _locked_meta(store, session, "LOCK IN SHARE MODE")
    meta = await store.check(session)
    _check_quarantined(store, meta.mode)
    done = [False] * len(items)
    gone: list[str] = []
    for run in distinct(enumerate(items)):
        rows = await store.locked(session, [item.id for _, item in run])
        ledger = Ledger(store, session, meta.now_us)
        for at, item in run:
            row = rows.get(item.id)
            if row is not None and row.job.epoch == item.epoch:
                done[at] = True
                if item.kind is RebaseKind.REMOVE:
                    ledger.forget(row)
                else:
                    _raise(ledger, row, item.started)
        await ledger.flush()
        gone += ledger.gone
    return done, gone


def _raise(ledger: Ledger, row: Row, started: bool) -> None:
    job, run = decisions.rebased(row.job, started, ledger.now_us)
    if row.st == LEASED:
        returned = Release(job.id, row.job.token, run is not None)
        ledger.end_lease(row, job, run, decisions.release_digest(returned))
    elif job.terminal:
        ledger.end(row, job, None, row.last_token, row.last_digest)
    else:
        ledger.change(row, job, row.st)


async def adopt(store: Store, session: Session, incarnation: str) -> set[str]:
    """The lanes to look at again."""
    t = store.tables
    await _locked_meta(store, session, "FOR UPDATE")
    meta = await store.meta(session)
    if meta.incarnation == incarnation:
        return set()
    await store.check(session)
    _check_quarantined(store, meta.mode)
    lanes = await _recount(store, session)
    await session.execute(f"UPDATE {t.meta} SET incarnation = ?, mode = ?", incarnation, StoreMode.OPEN.value)
    return lanes


async def _recount(store: Store, session: Session) -> set[str]:
    """Add to the counts what they are short of; the lanes that are known. What they lack is found by one statement, so
    that a job settled meanwhile is seen by its row and its delta alike, or by neither."""
    t = store.tables
    counted = ", ".join(f"j.st = {st} AS {name}" for st, name in enumerate(COUNTS))
    negated = ", ".join(f"-{name}" for name in COUNTS)
    found = await session.fetch(f"""
        SELECT name, {", ".join(f"SUM({name})" for name in COUNTS)} FROM (
            SELECT IF(j.st = {LEASED}, '{ALL_LANES}', j.lane) AS name, {counted} FROM {t.job} AS j
            UNION ALL SELECT lane, {negated} FROM {t.count}
            UNION ALL SELECT name, {negated} FROM {t.lane}
        ) AS either GROUP BY name""")
    lacking = Counter({(name, st): int(lack) for name, *lacks in found for st, lack in enumerate(lacks)})
    for statement in store.counting(lacking):
        await session.script(statement)
    return {name for name, *_ in found}


async def is_emptied(store: Store, session: Session) -> bool:
    """Whether the counts speak of jobs that are not there. The jobs are counted only if their table was made anew since
    it was looked at last, as it is when it is truncated."""
    t = store.tables
    total = " + ".join(COUNTS)
    claimed = (
        f"(SELECT COALESCE(SUM({total}), 0) FROM {t.lane}) + (SELECT COALESCE(SUM({total}), 0) FROM {t.count}) AS told"
    )
    # Either is one statement: what is settled meanwhile is in its row and its delta alike, or in neither.
    [(told, there)] = await session.fetch(f"SELECT {claimed}, EXISTS (SELECT 1 FROM {t.job})")
    [(made,)] = await session.fetch(
        "SELECT CAST(create_time AS CHAR) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = ?",
        t.job,
    )
    emptied = told > 0 and not there
    if told > 0 and there and store.made not in (None, made):
        [(told, jobs)] = await session.fetch(f"SELECT {claimed}, (SELECT COUNT(*) FROM {t.job})")
        emptied = bool(jobs < told)
    if not emptied:
        store.made = made
    return bool(emptied)


async def _locked_meta(store: Store, session: Session, strength: str) -> None:
    await session.fetch(f"SELECT 1 FROM {store.tables.meta} {strength}")


def _check_quarantined(store: Store, mode: StoreMode) -> None:
    if mode is not StoreMode.QUARANTINED:
        raise Refused(f"agent {store.agent!r} is {mode}: only a quarantined store is reconciled")
