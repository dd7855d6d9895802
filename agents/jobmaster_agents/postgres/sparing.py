"""How often a look is taken that may have to pass a great many dead rows.

Whatever begins at the head of an index passes the entries of all that was there since the oldest snapshot that somebody
holds, as no vacuum may remove them: milliseconds as a rule, a second after a few minutes of an idle transaction and a
million jobs. What a look cost says how long the next one is put off, so that all of one kind take at most a
tenth of the time.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

QUICK_SECONDS = 0.1
"""A look that takes no longer is taken whenever it is asked for,"""
TIMES = 10
"""any other so many times as long after the last one as that took,"""
MOST_SECONDS = 60.0
"""and at most so long."""


class Sparing:
    """The looks of one kind. How long one takes is the quicker of the last two: one that a busy machine held up would
    hide for many times as long what there is to see."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._seconds = 0.0
        self._last = 0.0

    @property
    def rest_seconds(self) -> float:
        """From the beginning of a look to that of the next one, at least."""
        return 0.0 if self._seconds <= QUICK_SECONDS else min(TIMES * self._seconds, MOST_SECONDS)

    def due(self, least_seconds: float = 0.0) -> bool:
        """Whether one may be taken, `least_seconds` or more after the last one."""
        return self._began is None or time.monotonic() >= self._began + max(least_seconds, self.rest_seconds)

    def begin(self) -> None:
        """One is taken. Said before it is known what it takes: a look that fails must not be all that is tried."""
        self._began = time.monotonic()

    def took(self, seconds: float) -> None:
        self._seconds = min(seconds, self._last)
        self._last = seconds

    @contextmanager
    def look(self) -> Iterator[None]:
        """One is taken here, as long as this takes."""
        began = time.monotonic()
        self.begin()
        yield
        self.took(time.monotonic() - began)

    def forget(self) -> None:
        """The next one may be taken at once."""
        self._began = None
