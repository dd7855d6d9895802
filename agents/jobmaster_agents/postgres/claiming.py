"""claim: the next ready jobs of some lanes, leased to one worker, by one statement.

Three things about its text are not a matter of taste; each of them decides between one index lookup and reading the
table, whatever the planner believes to know about it:

- The chosen rows come as an array, `id = ANY (ARRAY(…))`. Joined back, the planner has to guess how many a LIMIT that
  it can't see will give, guesses a tenth of the table, and reads it whole.
- Each lane and priority is a search of its own, in the order of the index. `lane = ANY (…) ORDER BY` would sort the
  backlog.
- Each search may begin behind what was claimed before: see `Floors`.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from jobmaster.contracts.values import StoreMode
from jobmaster.model.job import Job
from jobmaster.model.priority import Priority
from jobmaster.model.states import JobState
from jobmaster_agents.postgres.sparing import Sparing
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import CLOCK, LEASED, READY

FLOOR_SECONDS = 1.0
"""How long a line is not looked at from its very beginning if nothing speaks for it."""

_RANKS = range(len(Priority))

_PLAIN = (
    *("id", "handler", "lane", "priority", "epoch", "claim_seq", "version", "created_us", "original_due_us"),
    *("due_us", "data", "policy"),
)
_SELDOM = (
    *("labels", "expires_us", "first_started_us", "attempts", "snoozes", "interrupts", "crash_count", "suspect"),
    *("schedule", "effects", "progress", "progress_note", "error"),
)
_BARE = (
    "(j.expires_us IS NULL AND j.first_started_us IS NULL AND j.schedule IS NULL AND j.error IS NULL"
    " AND j.progress IS NULL AND j.labels IS NULL AND j.attempts + j.snoozes + j.interrupts + j.crash_count = 0"
    " AND NOT j.suspect AND NOT j.effects)"
)


_TOOK = "extract(epoch FROM clock_timestamp() - statement_timestamp())::float8"
"""SQL: seconds since the statement began. Read here, it would be with what this process waited for: a connection, or a
loop that a handler blocked."""


class _Line:
    """Where one lane began, by priority, when it was last claimed from."""

    def __init__(self) -> None:
        self.floors: list[int] | None = None
        self.horizon = 0
        self.least_seconds = 0.0
        self.looks = Sparing()


class Floors:
    """Where each line began when it was last claimed from.

    Claimed rows leave dead entries at the head of the index until a vacuum has removed them, which it can't while some
    transaction is older than they are, and every claim passes them all. So a claim begins at the first place the one
    before it got. That may leave out a job which came back with its old place, or was committed late; so it is only
    done for a while after a look from the very beginning, not where this process put a job back itself, and what does
    not fill the worker's wish is asked for again without it, unless such looks took too long of late: at once if it
    gave nothing, else by another claim, as what was found is not to wait.
    """

    def __init__(self) -> None:
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)

    def of(self, lane: str) -> list[int] | None:
        """The floors of a lane by priority; None: begin at the beginning."""
        line = self._lines[lane]
        return None if line.looks.due(line.least_seconds) else line.floors

    def may_look(self, lane: str) -> bool:
        """Whether it may be looked at from the beginning if something speaks for it."""
        return self._lines[lane].looks.due()

    def look(self, lanes: Collection[str]) -> None:
        """These lanes are looked at from the beginning."""
        for lane in lanes:
            line = self._lines[lane]
            line.looks.begin()
            line.least_seconds = FLOOR_SECONDS

    def took(self, lanes: Collection[str], seconds: float) -> None:
        """To look at these from the beginning took that long."""
        for lane in lanes:
            self._lines[lane].looks.took(seconds)

    def learn(self, firsts: Mapping[tuple[str, int], int], whole: frozenset[str], horizon: int = 0) -> None:
        """A claim got these first places; in the lanes of `whole` it had begun at the beginning, and `horizon` was then
        the last place given out."""
        before = {lane: self._lines[lane].horizon for lane in whole}
        for lane in whole:
            line = self._lines[lane]
            line.floors = [0] * len(_RANKS)
            line.horizon = horizon
            if not any((lane, rank) in firsts for rank in _RANKS):
                # The next one begins there as well, and is to say how long it took.
                line.looks.forget()
        for (lane, rank), place in firsts.items():
            floors = self._lines[lane].floors
            if floors is None:
                continue
            floors[rank] = place
            if lane in whole:
                # Those that go before it were looked through and gave nothing. What was put by the look before this one
                # is dead there, or known to nobody; what was put since may only just be committed.
                for earlier in range(rank):
                    floors[earlier] = floors[earlier] or before[lane]

    def drop(self, lane: str) -> None:
        """A job may have come back in that lane: have a look as soon as one may be taken."""
        self._lines[lane].least_seconds = 0.0

    def clear(self) -> None:
        """The store was set back: every line may begin anywhere."""
        for line in self._lines.values():
            line.looks.forget()
            line.horizon = 0


class Claiming:
    """The verb `claim` on one store."""

    def __init__(self, store: Store, unfilled: Callable[[Iterable[str]], None]) -> None:
        """`unfilled`: called with lanes that gave less than was asked for and may have more where nobody looked."""
        self.floors = Floors()
        self.unfilled = unfilled
        self._store = store
        t = store.tables
        plain = ", ".join("j.id::text AS id" if name == "id" else f"j.{name}" for name in _PLAIN)
        seldom = ", ".join(f"j.{name}" for name in _SELDOM)
        floors = ", ".join(f"floor{rank}" for rank in _RANKS)
        ranks = ", ".join(f"({rank}, l.floor{rank})" for rank in _RANKS)
        self.text = f"""
            WITH {CLOCK}, lines AS MATERIALIZED (
                SELECT l.*, (SELECT last_value FROM {t.place}) AS horizon FROM unnest(
                    $3::text[], $4::integer[], {", ".join(f"${6 + rank}::bigint[]" for rank in _RANKS)}
                ) AS l (lane, quota, {floors})
                WHERE EXISTS (SELECT 1 FROM {t.meta} WHERE incarnation = $12 AND mode = '{StoreMode.OPEN}')
                    AND NOT EXISTS (SELECT 1 FROM {t.lane} AS held WHERE held.name = l.lane AND held.paused)
            ), picked AS MATERIALIZED (
                SELECT next.id, l.lane FROM lines AS l CROSS JOIN LATERAL (
                    SELECT found.id FROM (VALUES {ranks}) AS p (rank, floor)
                    CROSS JOIN LATERAL (
                        SELECT r.id FROM {t.job} AS r
                        WHERE r.st = {READY} AND r.lane = l.lane AND r.priority = p.rank::smallint
                            AND r.seq >= p.floor AND r.handler = ANY ($11::text[])
                            AND (r.expires_us IS NULL OR r.expires_us > (SELECT now_us FROM clock))
                        ORDER BY r.seq LIMIT l.quota FOR UPDATE SKIP LOCKED
                    ) AS found
                    LIMIT l.quota
                ) AS next
                LIMIT $5
            ), counted AS (
                INSERT INTO {t.count} (lane, ready, leased) SELECT lane, -count(*), count(*) FROM picked GROUP BY lane
            )
            UPDATE {t.job} AS j SET st = {LEASED}, worker = $1, leased_until_us = (SELECT now_us FROM clock) + $2,
                claim_seq = j.claim_seq + 1, version = j.version + 1, started_us = NULL
            WHERE (j.st + 0) = {READY} AND j.id = ANY (ARRAY(SELECT id FROM picked))
            RETURNING {plain}, j.seq, CASE WHEN NOT {_BARE} THEN ROW({seldom}) END AS rest,
                (SELECT horizon FROM lines LIMIT 1) AS horizon, (SELECT {_TOOK}) AS took"""

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        asked = {lane: min(quota, limit) for lane, quota in quotas.items() if quota > 0}
        if limit <= 0 or not asked or not handlers:
            # Even so it is told if the store is another one.
            await self._store.database.read(self._store.check)
            return []
        jobs, from_middle = await self._claim(worker, asked, handlers, limit, ttl_us, use_floors=True)
        if from_middle and len(jobs) < limit:
            left = {lane: quota - sum(job.lane == lane for job in jobs) for lane, quota in asked.items()}
            left = {lane: quota for lane, quota in left.items() if quota > 0 and self.floors.may_look(lane)}
            if jobs:
                # Those need not wait for a look at what may have come back before them: it is asked for by itself.
                for lane in left:
                    self.floors.drop(lane)
                self.unfilled(left)
            elif left:
                jobs, _ = await self._claim(worker, left, handlers, limit, ttl_us, use_floors=False)
        if not jobs:
            await self._store.database.read(self._store.check)
        return jobs

    async def _claim(
        self,
        worker: str,
        quotas: Mapping[str, int],
        handlers: frozenset[str],
        limit: int,
        ttl_us: int,
        *,
        use_floors: bool,
    ) -> tuple[list[Job], bool]:
        """The jobs, and whether some line was looked at from its middle."""
        lanes = list(quotas)
        known = {lane: floors for lane in lanes if (floors := self.floors.of(lane))} if use_floors else {}
        nowhere = [0] * len(_RANKS)
        whole = frozenset(lanes).difference(known)
        self.floors.look(whole)
        columns = zip(*(known.get(lane, nowhere) for lane in lanes), strict=True)
        found = await self._store.database.fetch(
            self.text,
            worker,
            ttl_us,
            lanes,
            list(quotas.values()),
            limit,
            *map(list, columns),
            _listed(handlers),
            self._store.incarnation,
            after_commit="claim.after_commit",
            ordered=True,
        )
        if len(found) > 1:
            # They come as they are found; in a lane, what goes first is first.
            at = {lane: number for number, lane in enumerate(lanes)}
            found.sort(key=lambda values: (at[values[2]], values[3], values[12]))
        if whole and found:
            self.floors.took(whole, found[0][15])
        self._learn(found, whole)
        return [self._job(values, worker) for values in found], any(map(any, known.values()))

    def _learn(self, found: list[Any], whole: frozenset[str]) -> None:
        firsts: dict[tuple[str, int], int] = {}
        for values in found:
            firsts.setdefault((values[2], values[3]), values[12])
        self.floors.learn(firsts, whole, found[0][14] if found else 0)

    def _job(self, values: Any, worker: str) -> Job:
        return Job(
            id=values[0],
            handler=values[1],
            lane=values[2],
            priority=values[3],
            state=_RUNNING,
            epoch=values[4],
            claim_seq=values[5],
            version=values[6],
            agent=self._store.agent,
            created_us=values[7],
            original_due_us=values[8],
            due_us=values[9],
            worker=worker,
            data=values[10],
            policy=values[11],
            **({} if values[13] is None else dict(zip(_SELDOM, values[13], strict=True))),
        )


_RUNNING = JobState.RUNNING


@lru_cache(maxsize=64)
def _listed(handlers: frozenset[str]) -> list[str]:
    return sorted(handlers)
