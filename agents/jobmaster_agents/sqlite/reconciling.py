"""Reconciling a store that is not what it was: quarantine, raise or remove its rows, then make it a new one."""

import sqlite3
from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Control, Rebase, RebaseKind, Release, StoreMode
from jobmaster.ledger import distinct
from jobmaster.model.errors import Refused
from jobmaster_agents.sqlite import outbox
from jobmaster_agents.sqlite.ledger import Ledger
from jobmaster_agents.sqlite.rows import Row
from jobmaster_agents.sqlite.store import Meta, Store
from jobmaster_agents.sqlite.tables import LEASED, READY


def quarantine(store: Store, connection: sqlite3.Connection, change: Control) -> None:
    """Close the store, if it is the one that is meant."""
    meta = store.meta(connection)
    if change.incarnation not in (None, meta.incarnation):
        raise Refused(
            f"agent {store.agent!r}: the store is incarnation {meta.incarnation} by now, not {change.incarnation}, and "
            f"stays {meta.mode}; look at it again"
        )
    connection.execute(f"UPDATE {store.tables.meta} SET mode = ?", (StoreMode.QUARANTINED.value,))
    outbox.raise_mark(store, connection, change.mark)


def rebase(store: Store, connection: sqlite3.Connection, items: Sequence[Rebase]) -> tuple[list[bool], list[str]]:
    """Whether each was changed, and the jobs that are here no more."""
    _check_quarantined(store, store.check(connection))
    done = [False] * len(items)
    gone: list[str] = []
    now_us = store.now_us()
    for run in distinct(enumerate(items)):
        rows = store.by_id(connection, [item.id for _, item in run])
        ledger = Ledger(store, connection, now_us)
        for at, item in run:
            row = rows.get(item.id)
            if row is not None and row.job.epoch == item.epoch:
                done[at] = True
                if item.kind is RebaseKind.REMOVE:
                    ledger.forget(row)
                else:
                    _raise(ledger, row, item.started)
        ledger.flush()
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


def adopt(store: Store, connection: sqlite3.Connection, incarnation: str) -> set[str]:
    """The lanes to look at again."""
    t = store.tables
    meta = store.meta(connection)
    if meta.incarnation == incarnation:
        return set()
    _check_quarantined(store, store.check(connection))
    connection.execute(f"UPDATE {t.lane} SET ready = 0, delayed = 0, leased = 0, parked = 0")
    counted = connection.execute(f"SELECT lane, st, count(*) FROM {t.job} GROUP BY lane, st").fetchall()
    store.count(connection, {(lane, st): count for lane, st, count in counted})
    # The line goes on behind everybody who stands in it, also where the store's own row was lost.
    connection.execute(
        f"UPDATE {t.meta} SET incarnation = ?, mode = ?, seq = max(seq, ifnull((SELECT max(seq) FROM {t.job}), 0))",
        (incarnation, StoreMode.OPEN.value),
    )
    return {lane for lane, st, _ in counted if st == READY}


def is_emptied(store: Store, connection: sqlite3.Connection) -> bool:
    """Whether the counts speak of jobs where there is none."""
    t = store.tables
    (emptied,) = connection.execute(
        f"SELECT NOT EXISTS (SELECT 1 FROM {t.job}) AND EXISTS "
        f"(SELECT 1 FROM {t.lane} WHERE ready + delayed + leased + parked > 0)"
    ).fetchone()
    return bool(emptied)


def _check_quarantined(store: Store, meta: Meta) -> None:
    if meta.mode is not StoreMode.QUARANTINED:
        raise Refused(f"agent {store.agent!r} is {meta.mode}: only a quarantined store is reconciled")
