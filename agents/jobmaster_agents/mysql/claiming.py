"""claim: the next ready jobs of some lanes, leased to one worker, in one short transaction.

A lane is read in the order of the index (st, line, line_rank, seq), and only as far as needed: an order that the index
does not serve would lock the whole backlog before it sorts it, and other claimers, who skip what is locked, would get
nothing. Each row travels as one value: the driver reads columns one by one, which took longer than all the rest.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobmaster.contracts.mysql_text import sql
from jobmaster.contracts.values import StoreMode
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster_agents.mysql.rows import read
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import LEASED, NOW_US, READY

_SELDOM = (
    *("labels", "expires_us", "first_started_us", "attempts", "snoozes", "interrupts", "crash_count", "suspect"),
    *("schedule", "effects", "progress", "progress_note", "error"),
)
_BARE = (
    "(j.expires_us IS NULL AND j.first_started_us IS NULL AND j.schedule IS NULL AND j.error IS NULL"
    " AND j.progress IS NULL AND j.labels IS NULL AND j.attempts + j.snoozes + j.interrupts + j.crash_count = 0"
    " AND NOT j.suspect AND NOT j.effects)"
)
_PACKED = ", ".join(
    (
        *(f"j.{name}" for name in ("id", "handler", "lane", "priority", "epoch", "claim_seq", "version")),
        *(f"j.{name}" for name in ("created_us", "original_due_us", "due_us")),
        *(_BARE, "LENGTH(j.policy)", "CONCAT(j.policy, j.data)"),
    )
)
_SEPARATORS = 12
"""In a packed row. None of what stands before the last of them has one inside, or is ever NULL."""


class Claiming:
    """The verb `claim` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        t = store.tables
        self.pick = f"""
            SELECT CONCAT_WS('|', {_PACKED}) FROM {t.job} AS j FORCE INDEX ({t.prefix}job_line)
            WHERE j.st = {READY} AND j.line = ? AND j.handler IN ?
                AND (j.expires_us IS NULL OR j.expires_us > {NOW_US})
            ORDER BY j.line_rank, j.seq LIMIT ? FOR UPDATE SKIP LOCKED"""
        self._paused = f"SELECT name FROM {t.lane} WHERE name IN ? AND paused"
        self._rest = f"SELECT id, {', '.join(_SELDOM)} FROM {t.job} FORCE INDEX (PRIMARY) WHERE id IN ?"
        self._lease = f"""
            UPDATE {t.job} FORCE INDEX (PRIMARY) SET st = {LEASED}, worker = ?, leased_until_us = {NOW_US} + ?,
                claim_seq = claim_seq + 1, version = version + 1, started_us = NULL WHERE id IN ?"""

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        asked = {lane: min(quota, limit) for lane, quota in quotas.items() if quota > 0}
        if limit <= 0 or not asked or not handlers:
            # Even so it is told if the store is another one.
            await self._store.database.read(self._store.check)
            return []

        async def claim(session: Session) -> list[Job]:
            found = await self._pick(session, asked, handlers, limit)
            if not found:
                return []
            rows = [_unpacked(packed) for packed in found]
            counts: Counter[tuple[str, int]] = Counter()
            for row in rows:
                counts[row[2], READY] -= 1
                counts[row[2], LEASED] += 1
            lease = sql(self._lease, worker, ttl_us, sorted(row[0] for row in rows))
            await session.script(lease, *self._store.counting(counts))
            return self._jobs(rows, worker, await self._seldom(session, [row[0] for row in rows if not row[10]]))

        return await self._store.database.write(claim, after_commit="claim.after_commit")

    async def _pick(
        self, session: Session, asked: Mapping[str, int], handlers: frozenset[str], limit: int
    ) -> list[bytes]:
        """Packed rows, locked, lane by lane; those of the first lane are asked for before it is known whether any may
        be had."""
        first, *others = asked
        picking = sql(self.pick, first, handlers, asked[first])
        meta, (found, held) = await self._store.checked(session, picking, sql(self._paused, list(asked)))
        if meta.mode is not StoreMode.OPEN:
            return []
        paused = {name for (name,) in held.rows}
        picked: list[bytes] = [] if first in paused else [packed for (packed,) in found.rows]
        for lane in others:
            if lane not in paused and len(picked) < limit:
                more = await session.fetch(self.pick, lane, handlers, min(asked[lane], limit - len(picked)))
                picked += [packed for (packed,) in more]
        return picked

    async def _seldom(self, session: Session, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What few jobs have, of those that have some of it."""
        if not ids:
            return {}
        return {values[0]: read(_SELDOM, values[1:]) for values in await session.fetch(self._rest, ids)}

    def _jobs(self, rows: Iterable[Any], worker: str, seldom: Mapping[str, dict[str, Any]]) -> list[Job]:
        agent = self._store.agent
        return [
            Job(
                id=row[0],
                handler=row[1],
                lane=row[2],
                priority=row[3],
                state=_RUNNING,
                epoch=row[4],
                claim_seq=row[5] + 1,
                version=row[6] + 1,
                agent=agent,
                created_us=row[7],
                original_due_us=row[8],
                due_us=row[9],
                worker=worker,
                policy=row[11],
                data=row[12],
                **seldom.get(row[0], {}),
            )
            for row in rows
        ]


def _unpacked(packed: bytes) -> tuple[Any, ...]:
    job_id, handler, lane, *numbers, size, rest = packed.split(b"|", _SEPARATORS)
    cut = int(size)
    return (job_id.decode(), handler.decode(), lane.decode(), *map(int, numbers), rest[:cut], rest[cut:])


_RUNNING = JobState.RUNNING
