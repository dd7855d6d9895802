"""Reconciling a store that is not what it was: quarantine, raise or remove its rows, then make it a new one."""

from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Control, Rebase, RebaseKind, Release, StoreMode
from jobmaster.ledger import distinct
from jobmaster.model.errors import Refused
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.ledger import Ledger
from jobmaster_agents.postgres.rows import Row
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import COUNTS, LEASED, Tables


async def name_store(store: Store, connection: Connection) -> None:
    """A store whose rows were all deleted gets a name again: another one, so that nobody takes it for what it was."""
    await connection.execute(
        f"INSERT INTO {store.tables.meta} SELECT true, replace(gen_random_uuid()::text, '-', ''), 'open' "
        f"WHERE NOT EXISTS (SELECT 1 FROM {store.tables.meta}) ON CONFLICT DO NOTHING"
    )


async def quarantine(store: Store, connection: Connection, change: Control) -> None:
    """Close the store, if it is the one that is meant."""
    t = store.tables
    await _locked_meta(store, connection, "UPDATE")
    meta = await store.meta(connection)
    if change.incarnation not in (None, meta.incarnation):
        raise Refused(
            f"agent {store.agent!r}: the store is incarnation {meta.incarnation} by now, not {change.incarnation}, and "
            f"stays {meta.mode}; look at it again"
        )
    await connection.execute(f"UPDATE {t.meta} SET mode = $1", StoreMode.QUARANTINED.value)
    # The row of `meta` is locked: of two who raise the mark, the later one sees what the first did.
    await connection.execute(
        f"SELECT setval('{t.outbox_seq}', $1::bigint) FROM {t.outbox_seq} WHERE last_value < $1::bigint", change.mark
    )


async def rebase(store: Store, connection: Connection, items: Sequence[Rebase]) -> tuple[list[bool], list[str]]:
    """Whether each was changed, and the jobs that are here no more."""
    # Nobody adopts the store while this goes on: rows of an open one must not change their epoch.
    await _locked_meta(store, connection, "SHARE")
    meta = await store.check(connection)
    _check_quarantined(store, meta.mode)
    done = [False] * len(items)
    gone: list[str] = []
    for run in distinct(enumerate(items)):
        rows = await store.locked(connection, [item.id for _, item in run])
        ledger = Ledger(store, connection, meta.now_us)
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


async def adopt(store: Store, connection: Connection, incarnation: str) -> set[str]:
    """The lanes to look at again."""
    t = store.tables
    await _locked_meta(store, connection, "UPDATE")
    meta = await store.meta(connection)
    if meta.incarnation == incarnation:
        return set()
    await store.check(connection)
    _check_quarantined(store, meta.mode)
    lanes = await connection.fetch(_recount(t))
    await connection.execute(f"UPDATE {t.meta} SET incarnation = $1, mode = $2", incarnation, StoreMode.OPEN.value)
    return {lane for (lane,) in lanes}


def _recount(t: Tables) -> str:
    """Counts the jobs anew. One statement, so that what is settled meanwhile is seen by its row and its delta alike, or
    by neither."""
    counted = ", ".join(f"count(*) FILTER (WHERE st = {st}) AS {name}" for st, name in enumerate(COUNTS))
    known = ", ".join(f"coalesce(counted.{name}, 0)" for name in COUNTS)
    return f"""
        WITH dropped AS (DELETE FROM {t.count} RETURNING lane),
        counted AS (SELECT lane, {counted} FROM {t.job} GROUP BY lane),
        named AS (SELECT name FROM {t.lane} UNION SELECT lane FROM counted UNION SELECT lane FROM dropped)
        INSERT INTO {t.lane} (name, {", ".join(COUNTS)})
        SELECT named.name, {known} FROM named LEFT JOIN counted ON counted.lane = named.name ORDER BY named.name
        ON CONFLICT (name) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in COUNTS)}
        RETURNING name"""


async def is_emptied(store: Store, connection: Connection) -> bool:
    """Whether the counts speak of jobs that are not there. The jobs are counted only if their table got a new file
    since it was looked at last, as it does when it is truncated."""
    t = store.tables
    total = " + ".join(COUNTS)
    claimed = f"(SELECT coalesce(sum({total}), 0) FROM (TABLE {t.lane}) AS l)"
    claimed = f"({claimed} + (SELECT coalesce(sum({total}), 0) FROM {t.count}))"
    size, file, jobs = await connection.fetchrow(  # type: ignore[misc]  # it gives one row
        f"SELECT pg_relation_size('{t.job}'), pg_relation_filenode('{t.job}'), {claimed}"
    )
    emptied = jobs > 0 and size == 0
    if jobs > 0 and size and store.file not in (None, file):
        emptied = bool(await connection.fetchval(f"SELECT (SELECT count(*) FROM {t.job}) < {claimed}"))
    if not emptied:
        store.file = file
    return bool(emptied)


async def _locked_meta(store: Store, connection: Connection, strength: str) -> None:
    await connection.execute(f"SELECT 1 FROM {store.tables.meta} FOR {strength}")


def _check_quarantined(store: Store, mode: StoreMode) -> None:
    if mode is not StoreMode.QUARANTINED:
        raise Refused(f"agent {store.agent!r} is {mode}: only a quarantined store is reconciled")
