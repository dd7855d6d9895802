"""park: jobs whose handler nobody knows are set aside, and put back once somebody does."""

from collections import Counter
from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.mysql_text import sql
from jobmaster.contracts.values import ParkReport
from jobmaster.model.priority import Priority
from jobmaster_agents.mysql.ledger import Ledger
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import COUNTS, NOW_US, PARKED, READY

LOOKED_AT = 10_000
"""Jobs at the head of each line that are looked at for handlers nobody knows. Only there do they cost anything, as
every claim passes over them; what is behind gets its turn when it is near."""

_POLICY = "CONVERT(policy USING latin1)"
_GIVES_UP = '"unroutable_after_us": {0,1}[0-9]'
"""A regular expression. The policy need not be readable, and then it says nothing."""


async def unknown_ready(store: Store, session: Session, known: frozenset[str], limit: int) -> list[str]:
    """Ready jobs near the head of a line whose handler is not known."""
    t = store.tables
    unknown, values = _unknown(known)
    waits = COUNTS[READY]
    lanes = await session.fetch(
        f"SELECT name FROM {t.lane} WHERE {waits} <> 0 UNION SELECT lane FROM {t.count} WHERE {waits} <> 0"
    )
    found: list[str] = []
    for (lane,) in sorted(lanes):
        heads = [
            sql(
                f"SELECT id FROM (SELECT id, handler FROM {t.job} FORCE INDEX ({t.prefix}job_line) WHERE st = {READY} "
                f"AND line = ? AND line_rank = {rank:d} ORDER BY seq LIMIT {LOOKED_AT}) AS head "
                f"WHERE {unknown} LIMIT ?",
                lane,
                *values,
                limit,
            )
            for rank in Priority
        ]
        for result in await session.script(*heads):
            found += [job_id for (job_id,) in result.rows]
        if len(found) >= limit:
            break
    return found[:limit]


async def park(
    store: Store, session: Session, known: frozenset[str], limit: int, candidates: Sequence[str]
) -> tuple[ParkReport, set[str]]:
    """The report, and the lanes that have ready jobs again. `candidates` are from `unknown_ready`."""
    t = store.tables
    parked = await _park(store, session, known, candidates) if candidates else []
    unparked = await session.fetch(
        f"SELECT id, lane FROM {t.job} FORCE INDEX ({t.prefix}job_line) WHERE st = {PARKED} AND line IN ? LIMIT ? "
        "FOR UPDATE SKIP LOCKED",
        known,
        limit,
    )
    if unparked:
        ids = sorted(job_id for job_id, _ in unparked)
        await session.execute(
            f"UPDATE {t.job} FORCE INDEX (PRIMARY) SET st = {READY}, line = lane, line_rank = priority WHERE id IN ?",
            ids,
        )
    moved: Counter[tuple[str, int]] = Counter()
    for _, lane, _ in parked:
        moved[lane, READY] -= 1
        moved[lane, PARKED] += 1
    for _, lane in unparked:
        moved[lane, PARKED] -= 1
        moved[lane, READY] += 1
    for statement in store.counting(moved):
        await session.script(statement)
    report = ParkReport(
        parked=dict(Counter(handler for _, _, handler in parked)),
        unparked=len(unparked),
        more=len(candidates) == limit or len(unparked) == limit,
    )
    return report, {lane for _, lane in unparked}


async def _park(
    store: Store, session: Session, known: frozenset[str], candidates: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Set aside those that are still ready; id, lane and handler of each."""
    t = store.tables
    unknown, values = _unknown(known)
    found = await session.fetch(
        f"SELECT id, lane, handler FROM {t.job} FORCE INDEX (PRIMARY) WHERE id IN ? AND st = {READY} AND {unknown} "
        "ORDER BY id FOR UPDATE SKIP LOCKED",
        candidates,
        *values,
    )
    if found:
        ids = [job_id for job_id, _, _ in found]
        await session.execute(
            f"UPDATE {t.job} FORCE INDEX (PRIMARY) SET st = {PARKED}, line = handler, line_rank = 0 WHERE id IN ?",
            ids,
        )
    return [(str(job_id), str(lane), str(handler)) for job_id, lane, handler in found]


async def given_up(store: Store, session: Session, known: frozenset[str], limit: int) -> list[str]:
    """Parked jobs that have waited for a handler as long as they may."""
    t = store.tables
    unknown, values = _unknown(known)
    waits = f"CAST(SUBSTRING_INDEX({_POLICY}, '\"unroutable_after_us\":', -1) AS SIGNED)"
    found = await session.fetch(
        f"SELECT id FROM {t.job} FORCE INDEX ({t.prefix}job_line) WHERE st = {PARKED} AND {unknown} "
        f"AND {_POLICY} REGEXP ? AND due_us + {waits} <= {NOW_US} LIMIT ?",
        *values,
        _GIVES_UP,
        limit,
    )
    return [job_id for (job_id,) in found]


async def give_up(store: Store, session: Session, known: frozenset[str], candidates: Sequence[str]) -> Ledger:
    """End those of the candidates, which are from `given_up`, that are still parked."""
    ledger = Ledger(store, session, await store.now_us(session))
    rows = await store.locked(session, candidates, f"AND j.st = {PARKED}")
    for row in rows.values():
        ended = None if row.job.handler in known else decisions.unroutable(row.job, ledger.now_us)
        if ended is not None:
            ledger.end(row, ended, None, row.last_token, row.last_digest)
    await ledger.flush()
    return ledger


def _unknown(known: frozenset[str]) -> tuple[str, list[frozenset[str]]]:
    """A condition, and its values: an empty list is no list that anything is not in."""
    return ("handler NOT IN ?", [known]) if known else ("TRUE", [])
