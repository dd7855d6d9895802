"""ManualClock: time that moves only when told to."""

import asyncio
import heapq
import itertools

START_US = 1_800_000_000_000_000
"""Where a manual clock starts unless told otherwise: 2027-01-15T08:00:00Z."""


class ManualClock:
    """A clock for tests. Sleepers wake, in order of their times, when `advance` passes them."""

    def __init__(self, start_us: int = START_US) -> None:
        self._now_us = start_us
        self._start_us = start_us
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def wall_us(self) -> int:
        return self._now_us

    def mono(self) -> float:
        return (self._now_us - self._start_us) / 1e6

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_us + round(seconds * 1e6), next(self._order), waiter))
        await waiter

    def next_wake_us(self) -> int | None:
        """When the next sleeper is due; None if nobody sleeps."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def advance(self, seconds: float) -> None:
        """Move on, waking those whose time has come. They run once the caller awaits something."""
        self._now_us += round(seconds * 1e6)
        while (due := self.next_wake_us()) is not None and due <= self._now_us:
            heapq.heappop(self._sleepers)[2].set_result(None)

    def jump_wall(self, seconds: float) -> None:
        """Step the wall clock, forward or back, without any time passing."""
        shift = round(seconds * 1e6)
        self._now_us += shift
        self._start_us += shift
        self._sleepers = [(due + shift, order, waiter) for due, order, waiter in self._sleepers]
        heapq.heapify(self._sleepers)
