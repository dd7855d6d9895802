"""Hints: that something may have changed in a store, to whoever waits for it in this process, on any of its loops. How
a store learns what other processes did, by looking or by being told, is its own business.

Topics are plain strings. A hint may be spurious and may be lost; nothing but speed depends on it. A topic that is
`publish`ed is counted, and a waiter brings the count it has seen, so that what happens between two waits is not missed;
one that is only `wake`d is not counted, which suits topics that would otherwise pile up, such as job ids.
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any


class Waiter:
    """One wait, registered from creation until `close`. Belongs to the running loop."""

    __slots__ = ("_future", "_loop", "everything", "poll", "since", "topics")

    def __init__(self, topics: frozenset[str], poll: float, everything: int) -> None:
        self.topics = topics
        self.poll = poll
        self.since = time.monotonic()
        self.everything = everything
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    async def wait(self, nap: Coroutine[Any, Any, None]) -> None:
        """Return once woken, or when `nap`, the clock's sleep, is over."""
        if self._future.done():
            nap.close()
            return
        sleeper = asyncio.ensure_future(nap)
        try:
            await asyncio.wait((self._future, sleeper), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()

    def wake(self) -> None:
        # The loop may have been closed by somebody who did not wait for us.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class Hints:
    """Who waits for what in one store. Any thread may call anything."""

    def __init__(self, nudge: Callable[[], None] | None = None) -> None:
        self._nudge = nudge
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._everything = 0
        self._by_topic: dict[str, set[Waiter]] = {}
        self._waiters: set[Waiter] = set()
        self._poll: float | None = None

    @property
    def poll_seconds(self) -> float | None:
        """How often somebody should look for changes by other processes; None: nobody waits."""
        return self._poll

    def count(self, topics: Iterable[str]) -> int:
        """A number that grows whenever one of the topics is published."""
        with self._lock:
            return self._everything + sum(self._counts[topic] for topic in topics)

    def publish(self, topics: Iterable[str]) -> None:
        """One of these may have happened; who waits later will know."""
        topics = tuple(topics)
        with self._lock:
            self._counts.update(topics)
            woken = self._waiting_for(topics)
        for waiter in woken:
            waiter.wake()

    def wake(self, topics: Iterable[str]) -> None:
        """One of these may have happened; only who waits now will know."""
        if not self._by_topic:
            return
        with self._lock:
            woken = self._waiting_for(topics)
        for waiter in woken:
            waiter.wake()

    def look(self, changed: bool) -> None:
        """To be called when somebody has looked whether another process changed the store: who knows what. A waiter is
        woken by that no sooner than its own `poll` after it began to wait, so that one who watches closely does not
        keep all the others awake."""
        now = time.monotonic()
        with self._lock:
            self._everything += changed
            woken = [
                waiter
                for waiter in self._waiters
                if waiter.everything != self._everything and now - waiter.since >= waiter.poll
            ]
        for waiter in woken:
            waiter.wake()

    @contextlib.contextmanager
    def waiting(self, topics: frozenset[str], poll: float) -> Iterator[Waiter]:
        """A waiter woken by these topics from here on, and by changes of other processes, looked for every `poll`
        seconds."""
        with self._lock:
            waiter = Waiter(topics, poll, self._everything)
            self._waiters.add(waiter)
            for topic in topics:
                self._by_topic.setdefault(topic, set()).add(waiter)
            sooner = self._poll is None or poll < self._poll
            if sooner:
                self._poll = poll
        if sooner and self._nudge is not None:
            self._nudge()
        try:
            yield waiter
        finally:
            with self._lock:
                self._remove(waiter)

    def _remove(self, waiter: Waiter) -> None:
        self._waiters.discard(waiter)
        for topic in waiter.topics:
            others = self._by_topic[topic]
            others.discard(waiter)
            if not others:
                del self._by_topic[topic]
        self._poll = min((other.poll for other in self._waiters), default=None)

    def _waiting_for(self, topics: Iterable[str]) -> set[Waiter]:
        by_topic = self._by_topic
        return {waiter for topic in topics if topic in by_topic for waiter in by_topic[topic]}
