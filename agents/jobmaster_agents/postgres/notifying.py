"""What a process tells the others of an agent: gathered, and sent at most once per cooldown.

On both edges: the first thing to tell goes out at once, what follows during the cooldown goes out together at its end.
Whoever tells waits for nothing. A notification is a transaction of its own, because one inside the transaction that it
is about would make all such commits of the database wait for each other.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterable

from jobmaster.contracts.clock import Clock
from jobmaster.model.errors import StoreError

COOLDOWN_SECONDS = 0.05
LONGEST = 7_000
"""Characters of a payload; the server takes just under 8,000 bytes."""
MOST_ENDS = 2_000
"""Ends told one by one in a cooldown; beyond that it is "something ended"."""
MARK = 8
"""Characters at the end of an id that stand for it: random bits, in ids made here."""

LANES, ENDS, ANY_END, WATCHED, ECHO = "l", "e", "*", "w", "p"
"""The first character of a message."""


def mark(job_id: str) -> str:
    """What of an id is sent."""
    return job_id[-MARK:].rjust(MARK, "_")


class Notifier:
    """`tell_…` may be called from any thread, at any time; what is told before `start` or after `stop` is dropped."""

    def __init__(self, send: Callable[[list[str]], Awaitable[None]], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._busy = False
        self._lanes: set[str] = set()
        self._ends: list[str] = []
        self._words: set[str] = set()

    def start(self) -> None:
        """Send on the running loop from now on."""
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """What was told and not sent yet is dropped: whoever polls finds it."""
        self._loop = None
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def tell_lanes(self, lanes: Iterable[str]) -> None:
        """These may have ready jobs."""
        with self._lock:
            if self._rouse():
                self._lanes.update(lanes)

    def tell_ends(self, ids: Iterable[str]) -> None:
        """These jobs are at the agent no more."""
        with self._lock:
            if self._rouse() and len(self._ends) <= MOST_ENDS:
                self._ends += map(mark, ids)

    def tell(self, word: str) -> None:
        """One of the messages that carry nothing else."""
        with self._lock:
            if self._rouse():
                self._words.add(word)

    def _rouse(self) -> bool:
        """Whether what is added now will be sent."""
        loop = self._loop
        if loop is None:
            return False
        if not self._busy:
            try:
                loop.call_soon_threadsafe(self._begin)
            except RuntimeError:
                # The loop was closed by somebody who did not stop us.
                self._loop = None
                return False
            self._busy = True
        return True

    def _begin(self) -> None:
        if self._loop is not None:
            self._task = self._loop.create_task(self._run(), name="jobmaster:postgres.notify")

    async def _run(self) -> None:
        try:
            while messages := self._take():
                # What is lost is found by polling.
                with contextlib.suppress(StoreError):
                    await self._send(messages)
                await self._clock.sleep(COOLDOWN_SECONDS)
        finally:
            self._busy = False

    def _take(self) -> list[str]:
        with self._lock:
            messages = [*self._words, *_packed(LANES, self._lanes, ",")]
            if len(self._ends) > MOST_ENDS:
                messages.append(ANY_END)
            else:
                messages += _packed(ENDS, self._ends, "")
            self._lanes, self._ends, self._words = set(), [], set()
            self._busy = bool(messages)
            return messages


def _packed(kind: str, items: Iterable[str], separator: str) -> list[str]:
    """As few messages as the items fit into."""
    messages: list[str] = []
    piece: list[str] = []
    length = 0
    for item in items:
        if length + len(item) + 1 > LONGEST:
            messages.append(kind + separator.join(piece))
            piece, length = [], 0
        piece.append(item)
        length += len(item) + 1
    if piece:
        messages.append(kind + separator.join(piece))
    return messages
