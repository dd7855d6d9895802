"""What time it is in a store, without asking it each time.

A due time or a put deadline means the store's clock. Asking costs a round trip, so the difference to this machine's
monotonic clock is measured now and then. The estimate is never ahead of the store: a job enqueued for "now" must not
become a delayed one because of it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from jobmaster.contracts.clock import Clock
from jobmaster.model.errors import StoreError

FRESH_SECONDS = 60.0
"""How long a measurement serves. Clocks drift by far less than matters here; steps are what it has to notice."""
PATIENCE_SECONDS = 2.0
"""How long to wait for a fresh one, where the old one does too. Longer than the link to the master has patience: it is
the link that should give up, as it then knows that the master is away."""
RETRY_SECONDS = 5.0
"""How long after a failed one the next is tried."""


class StoreTime:
    """One store's time, estimated."""

    def __init__(self, clock: Clock, read: Callable[[], Awaitable[int]]) -> None:
        self._clock = clock
        self._read = read
        self._offset_us: int | None = None
        self._measured = 0.0
        self._retry_at = float("-inf")

    def now_us(self) -> int:
        """Microseconds UTC, at most what the store would say; this machine's wall time before any measurement."""
        if self._offset_us is None:
            return self._clock.wall_us()
        return self._offset_us + int(self._clock.mono() * 1e6)

    async def measure(self) -> int:
        """Ask the store; gives its time. Raises what the store raises."""
        said = await self._read()
        # The answer is as old as its way back: taking the moment of arrival keeps the estimate behind the store.
        self._measured = self._clock.mono()
        self._offset_us = said - int(self._measured * 1e6)
        return said

    async def fresh_us(self) -> int:
        """`now_us`, measured anew if the last time was long ago. A store that does not answer leaves the old
        estimate in force."""
        now = self._clock.mono()
        if now >= self._retry_at and (self._offset_us is None or now - self._measured > FRESH_SECONDS):
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    return await self.measure()
            except (StoreError, TimeoutError):
                self._retry_at = now + RETRY_SECONDS
        return self.now_us()
