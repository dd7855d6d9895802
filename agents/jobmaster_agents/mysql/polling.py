"""How who waits learns of what happened: hints inside of this process, and looking for what others did.

Every write that makes jobs ready leaves a row in the table of counts anyway, under a number that grows. So one look at
the rows behind the last number seen tells all lanes that got jobs since, costs no writer anything, and reads next to
nothing where nothing happened. Rows that were added up before anybody looked, or committed late, are missed: whoever
waits polls as well.
"""

import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from jobmaster.contracts.clock import Clock
from jobmaster.loop import Loop
from jobmaster.waking import Hints
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.tables import COUNTS, READY

LOOK_SECONDS = 0.02
"""How often is looked while things happen,"""
IDLE_SECONDS = 0.1
"""and when nothing has for a while."""
SLOWER = 1.25
"""Each look in vain makes the pause to the next one so much longer."""
NOBODY_SECONDS = 60.0
"""As long as nobody waits. Whoever begins to wait has a look taken at once."""
MOST_IDS = 200
"""Jobs that are looked for in one look; who watches others asks for himself now and then."""


class Polling:
    """What one handle and its companions hear and tell. `publish` and `gone` may be called from any thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        t = store.tables
        self.hints = Hints()
        self._store = store
        self._clock = clock
        self._seen: dict[frozenset[str], int] = {}
        self._lock = threading.Lock()
        self._lanes: Counter[str] = Counter()
        self._ids: Counter[str] = Counter()
        self._last: int | None = None
        """The number of the last count that was seen; None: none is known yet."""
        self._own: Counter[str] = Counter()
        """By lane, how many of the counts to be seen next are of this process, and told already."""
        self._pause = LOOK_SECONDS
        self._loop: Loop | None = None
        self._counts = f"SELECT id, lane, {COUNTS[READY]} > 0 FROM {t.count} WHERE id > ? ORDER BY id DESC LIMIT 1000"
        self._newest = f"SELECT id FROM {t.count} ORDER BY id DESC LIMIT 1"
        self._ended = (
            f"SELECT stone.id FROM {t.tombstone} AS stone FORCE INDEX (PRIMARY) "
            "WHERE stone.id IN ? AND NOT stone.moved "
            f"AND NOT EXISTS (SELECT 1 FROM {t.job} AS j FORCE INDEX (PRIMARY) WHERE j.id = stone.id)"
        )

    async def start(self) -> None:
        """Look from now on."""
        rng = random.Random()  # noqa: S311 - jitter
        self._loop = Loop("mysql.look", self._look, clock=self._clock, rng=rng, idle=NOBODY_SECONDS)
        self._loop.start()

    async def stop(self) -> None:
        """Nobody looks any more. Never raises."""
        if self._loop is not None:
            await self._loop.stop(grace=0.1)

    def publish(self, lanes: Iterable[str]) -> None:
        """These lanes may have ready jobs, by what this process wrote just now."""
        with self._lock:
            self._own.update(lanes)
        self.hints.publish(map(_lane_topic, lanes))

    def gone(self, ids: Sequence[str]) -> None:
        """These jobs are here no more: whoever watches them is woken."""
        self.hints.wake(ids)

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        """Return early if one of the lanes was published since the last wait for them, here or by another process;
        else after `seconds`."""
        topics = frozenset(map(_lane_topic, lanes))
        seen = self._seen.get(lanes, 0)
        with self.hints.waiting(topics, 0.0) as waiter:
            if self.hints.count(topics) == seen and seconds > 0:
                with self._looking(self._lanes, lanes):
                    await waiter.wait(self._clock.sleep(seconds))
        self._seen[lanes] = self.hints.count(topics)

    async def watch(self, ids: frozenset[str], seconds: float, any_ended: Callable[[], Awaitable[bool]]) -> None:
        """Return early if one of the jobs may have ended; `any_ended` asks the store."""
        if seconds <= 0:
            return
        with self.hints.waiting(ids, 0.0) as waiter, self._looking(self._ids, ids):
            if not await any_ended():
                await waiter.wait(self._clock.sleep(seconds))

    @contextmanager
    def _looking(self, waited: Counter[str], names: frozenset[str]) -> Iterator[None]:
        """Have these looked for meanwhile."""
        with self._lock:
            first = not self._lanes and not self._ids
            waited.update(names)
        if first and self._loop is not None:
            self._loop.wake()
        try:
            yield
        finally:
            with self._lock:
                waited.subtract(names)
                for name in names:
                    if waited[name] <= 0:
                        del waited[name]

    async def _look(self) -> float:
        """One pass of the loop."""
        with self._lock:
            lanes, ids = bool(self._lanes), list(self._ids)[:MOST_IDS]
        if not lanes and not ids:
            return NOBODY_SECONDS
        happened = await self._store.database.read(lambda session: self._ask(session, lanes, ids))
        self._pause = LOOK_SECONDS if happened else min(self._pause * SLOWER, IDLE_SECONDS)
        return self._pause

    async def _ask(self, session: Session, lanes: bool, ids: Sequence[str]) -> bool:
        """Tell whom it concerns; whether there was anything."""
        happened = False
        if lanes:
            happened = await self._ask_lanes(session)
        if ids:
            ended = await session.fetch(self._ended, ids)
            self.hints.wake(job_id for (job_id,) in ended)
            happened = happened or bool(ended)
        return happened

    async def _ask_lanes(self, session: Session) -> bool:
        if self._last is None:
            newest = await session.fetch(self._newest)
            self._last = newest[0][0] if newest else 0
            return False
        found = await session.fetch(self._counts, self._last)
        with self._lock:
            own, self._own = self._own, Counter()
        if not found:
            return False
        self._last = found[0][0]
        written = Counter(lane for _, lane, ready in found if ready)
        self.hints.publish(map(_lane_topic, written - own))
        return bool(written)


def _lane_topic(lane: str) -> str:
    # No id holds a colon.
    return f"lane:{lane}"
