"""ClockGuard: noticing that a clock was set, this machine's or a store's, or that the process slept through its passes.

Whoever acts on wall time (the planner) or on a store's time (the reaper) must not act right after a jump: a clock set
forward would fire every schedule and expire every lease at once, though nobody is late.
"""

from jobmaster.contracts.clock import Clock

JUMP_SECONDS = 5.0
JUMP_SHARE = 0.05


class ClockGuard:
    """Compares wall time with monotonic time from one call to the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall_us: int | None = None
        self._mono = clock.mono()

    def elapsed(self, wall_us: int) -> tuple[float, bool]:
        """Monotonic seconds since the call before, and whether wall time, now `wall_us`, moved by something else than
        that: by more than 5 s or 5 % of it, whichever is greater. Each call starts a new comparison."""
        mono = self._clock.mono()
        passed = mono - self._mono
        shift = 0.0 if self._wall_us is None else abs((wall_us - self._wall_us) / 1e6 - passed)
        self._wall_us, self._mono = wall_us, mono
        return passed, shift > max(JUMP_SECONDS, JUMP_SHARE * passed)
