"""Resting: who finds nothing in a lane but what only others can run keeps away from it for a moment.

A claim can't choose by handler, so of two workers that know different ones either may be given the other's last jobs.
Put back at once, they would be drawn for again; with the one who can't run them away, they find the one who can.
"""

import random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 0.5


class Resting:
    """The rests of one process, each of a lane and the handlers it was asked for. Times are those of one clock."""

    def __init__(self) -> None:
        self._rests: dict[tuple[str, frozenset[str]], tuple[int, float]] = {}
        """How many began since there was something to run, and when the last one ends."""

    def begin(self, lane: str, handlers: frozenset[str], now: float) -> None:
        """The next rest, each twice as long as the one before, between 0.5 and 1.5 of that, so that no two that
        wait for each other's jobs keep step."""
        times, _ = self._rests.get((lane, handlers), (0, now))
        length = min(FIRST_SECONDS * 2 ** min(times, 10), LONGEST_SECONDS)
        # What is random here decides nothing but who comes first.
        self._rests[lane, handlers] = times + 1, now + length * random.uniform(0.5, 1.5)  # noqa: S311

    def end(self, lane: str, handlers: frozenset[str]) -> None:
        """The lane had something to run: the next rest is a first one."""
        self._rests.pop((lane, handlers), None)

    def rests(self, lane: str, handlers: frozenset[str], now: float) -> bool:
        _, until = self._rests.get((lane, handlers), (0, now))
        return until > now

    def left(self, lanes: frozenset[str], now: float) -> float | None:
        """Seconds to the first end of a rest in these lanes; None: there is none."""
        ends = [until for (lane, _), (_, until) in self._rests.items() if lane in lanes and until > now]
        return min(ends) - now if ends else None
