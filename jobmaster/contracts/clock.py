"""Time as a parameter: which clock is for what.

Wall time stamps records and is what humans read; monotonic time is the only one for arithmetic about trust and
timeouts. Lease expiry is neither: it is the store's own time, read inside the store's statements.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What a process may know of time."""

    def wall_us(self) -> int:
        """Microseconds since 1970, UTC. May jump."""
        ...

    def mono(self) -> float:
        """Seconds, never going back, running on while the machine is suspended where the system can tell."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return once `seconds` of this clock have passed."""
        ...


# CLOCK_MONOTONIC stops while a machine is suspended; a lease in a store does not.
_MONO = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        return time.time_ns() // 1_000

    def mono(self) -> float:
        return time.clock_gettime(_MONO)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
