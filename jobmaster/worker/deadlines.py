"""Deadlines: the end of each run's timeout, grace and trust, watched by one sleeper for all runs.

A timer per run would be set and cancelled for every job. Instead the earliest deadline of all is slept for, and when
it comes all runs are looked at; there are never more of them than slots. A run that ends early costs nothing, and
since most runs share one timeout, a new run is hardly ever the earliest.
"""

import random
from collections.abc import Callable

from jobmaster.contracts.clock import Clock
from jobmaster.loop import Loop
from jobmaster.worker.lease import NEVER, Ending, Lease

IDLE_SECONDS = 3_600.0
SHORTEST_PAUSE = 0.001


class Deadlines:
    """Calls `end` when a run's timeout or its lease's trust is over, and `abandon` when its grace is."""

    def __init__(
        self,
        running: set[Lease],
        end: Callable[[Lease, Ending], None],
        abandon: Callable[[Lease], None],
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._running = running
        self._end = end
        self._abandon = abandon
        self._clock = clock
        self._next = NEVER
        self._loop = Loop("worker.deadlines", self._pass, clock=clock, rng=rng, idle=IDLE_SECONDS)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def watch(self, lease: Lease) -> None:
        """A run has begun, or one of its deadlines has come nearer."""
        if lease.stop_at < self._next or lease.trust_until < self._next:
            self._next = _next_of(lease)
            self._loop.wake()

    async def _pass(self) -> float:
        now = self._clock.mono()
        for lease in tuple(self._running):
            if now >= lease.stop_at:
                if lease.in_grace:
                    self._abandon(lease)
                else:
                    self._end(lease, Ending.TIMED_OUT)
            elif lease.ending is None and now >= lease.trust_until:
                self._end(lease, Ending.DISTRUSTED)
        self._next = min((_next_of(lease) for lease in self._running), default=NEVER)
        return min(IDLE_SECONDS, max(SHORTEST_PAUSE, self._next - self._clock.mono()))


def _next_of(lease: Lease) -> float:
    # A run that was told to end is watched for its grace alone; trust ended it, or no longer matters.
    return min(lease.stop_at, lease.trust_until) if lease.ending is None else lease.stop_at
