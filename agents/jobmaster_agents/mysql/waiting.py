"""Waiting jobs: promote, amend, withdraw, purge."""

from collections import Counter
from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.mysql_text import keyed
from jobmaster.contracts.values import AmendAnswer, Amendment, PromoteReport, RevokeKind, StoreMode
from jobmaster.ledger import distinct
from jobmaster_agents.mysql.ledger import Ledger
from jobmaster_agents.mysql.revoking import take
from jobmaster_agents.mysql.rows import Row
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import DELAYED, LEASED, NOW_US, READY

_DELAYED = f"st = {DELAYED} AND line = '' AND line_rank = 0"


async def promote(store: Store, session: Session, limit: int) -> tuple[PromoteReport, Ledger]:
    """The report, and what was made ready or ended."""
    t = store.tables
    meta = await store.meta(session)
    ledger = Ledger(store, session, meta.now_us)
    if meta.mode is StoreMode.QUARANTINED:
        return PromoteReport(), ledger
    overdue = await store.select(
        session,
        f"FORCE INDEX ({t.prefix}job_expiry) WHERE j.expires_us <= ? AND j.st <> {LEASED} "
        "ORDER BY j.expires_us LIMIT ? FOR UPDATE SKIP LOCKED",
        ledger.now_us,
        limit,
    )
    for row in overdue:
        ledger.expire(row)
    await ledger.flush()
    due = await session.fetch(
        f"SELECT id, lane FROM {t.job} FORCE INDEX ({t.prefix}job_line) WHERE {_DELAYED} AND seq <= {NOW_US} "
        "ORDER BY seq LIMIT ? FOR UPDATE SKIP LOCKED",
        limit,
    )
    if due:
        await _make_ready(store, session, due)
        ledger.ready |= {lane for _, lane in due}
    [(wakes_us, expires_us)] = await session.fetch(
        f"SELECT (SELECT seq FROM {t.job} FORCE INDEX ({t.prefix}job_line) WHERE {_DELAYED} "
        f"ORDER BY seq LIMIT 1), (SELECT expires_us FROM {t.job} FORCE INDEX ({t.prefix}job_expiry) "
        f"WHERE expires_us IS NOT NULL AND st <> {LEASED} ORDER BY expires_us LIMIT 1)"
    )
    report = PromoteReport(
        ready=len(due),
        expired=len(overdue),
        next_due_us=min((at for at in (wakes_us, expires_us) if at is not None), default=None),
        more=len(due) == limit or len(overdue) == limit,
    )
    return report, ledger


async def _make_ready(store: Store, session: Session, due: Sequence[tuple[str, str]]) -> None:
    """Delayed jobs, which are locked, stand at the end of their line, in the order given."""
    first = await store.next_places(session)
    given = session.dialect.given(("id", "seq"), [keyed(job_id, seq) for seq, (job_id, _) in enumerate(due, first)])
    counts: Counter[tuple[str, int]] = Counter()
    for _, lane in due:
        counts[lane, READY] += 1
        counts[lane, DELAYED] -= 1
    await session.script(
        b"UPDATE %b AS new STRAIGHT_JOIN %b AS j FORCE INDEX (PRIMARY) ON j.id = new.id SET j.st = %d, "
        b"j.line = j.lane, j.line_rank = j.priority, j.seq = new.seq" % (given, store.tables.job.encode(), READY),
        *store.counting(counts),
    )


async def amend(store: Store, session: Session, items: Sequence[Amendment]) -> tuple[list[AmendAnswer], set[str]]:
    """The answers, and the lanes that have jobs made ready."""
    answers = [AmendAnswer.UNKNOWN] * len(items)
    ready: set[str] = set()
    for run in distinct(enumerate(items)):
        rows = await store.locked(session, [item.id for _, item in run])
        ledger = Ledger(store, session, await store.now_us(session))
        for at, item in run:
            if item.id in rows:
                answers[at] = _amend(ledger, rows[item.id], item)
        await ledger.flush()
        ready |= ledger.ready
    return answers, ready


def _amend(ledger: Ledger, row: Row, item: Amendment) -> AmendAnswer:
    if row.st == LEASED:
        return AmendAnswer.RUNNING
    if row.job.version != item.version:
        return AmendAnswer.CONFLICT
    job = decisions.amended(row.job, item)
    if item.data is not None and row.first_data is None:
        row.first_data = row.job.data
    if row.st != DELAYED and decisions.is_due(job, ledger.now_us):
        ledger.change(row, job, row.st)
    else:
        ledger.shelve(row, job)
    return AmendAnswer.CHANGED


async def take_waiting(
    store: Store, session: Session, lane: str | None, kind: RevokeKind, limit: int, after_id: str = ""
) -> list[str]:
    """Revoke up to `limit` waiting jobs of a lane (None: all), in id order; their ids. None only if there are none."""
    in_lane = "" if lane is None else "AND lane = ?"
    while True:
        # Read first and locked by id then: a search that locks would wait for every lease being settled on its way.
        found = await session.fetch(
            f"SELECT id FROM {store.tables.job} FORCE INDEX (PRIMARY) WHERE id > ? AND st <> {LEASED} {in_lane} "
            "ORDER BY id LIMIT ?",
            after_id,
            *(() if lane is None else (lane,)),
            limit,
        )
        if not found:
            return []
        also, values = f"AND j.st <> {LEASED}", [job_id for (job_id,) in found]
        rows = await store.locked(session, values, also)
        taken = [row for row in rows.values() if lane in (None, row.job.lane)]
        if taken:
            ledger = Ledger(store, session, await store.now_us(session))
            for row in taken:
                take(ledger, row, kind)
            await ledger.flush()
            return [row.job.id for row in taken]
        # All of them were claimed just now.
        after_id = values[-1]
