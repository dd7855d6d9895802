"""The stall watch: notices from outside that the worker's event loop makes no progress, and says who blocks it."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Collection

import structlog

from jobmaster.worker.lease import Lease

WARN_SECONDS = 1.0
"""With the quarter of a second between two looks, a handler is named within 2 s."""
LONGEST_STEP = 1.0
"""More time than this between two looks was not the loop's fault: the whole process did not run."""
SHOWN_HANDLERS = 5
LAG_SECONDS = 10.0
"""How long the slowest answer of the loop is remembered."""

_log = structlog.get_logger("jobmaster.worker")


class StallWatch:
    """Asks the loop for a sign of life at every look, and counts for how long there was none."""

    def __init__(
        self, on_unresponsive: Callable[[], None], let_go: Callable[[], None], warn_after: float | None = None
    ) -> None:
        self._on_unresponsive = on_unresponsive
        self._let_go = let_go
        self._warn_after = WARN_SECONDS if warn_after is None else warn_after
        self._answered = True
        self._stalled = 0.0
        self._looked_at: float | None = None
        self._warned = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._asked_at = 0.0
        self._slowest = 0.0
        self._slowest_at = float("-inf")

    def start(self) -> None:
        """The running loop, on this thread, is the one to watch."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def look(self, held: Collection[Lease], now: float) -> None:
        """Called every quarter of a second on another thread, less often while nothing is held. Warns once per stall
        in which something is. When a run is past its timeout and its grace, all leases are let go and
        `on_unresponsive` is called."""
        assert self._loop is not None
        loop = self._loop
        elapsed = 0.0 if self._looked_at is None else min(now - self._looked_at, LONGEST_STEP)
        self._looked_at = now
        if self._answered:
            if self._warned:
                _log.warning("worker.loop_unblocked", after_seconds=round(self._stalled, 1))
            self._stalled, self._warned = 0.0, False
            self._ask(loop)
            return
        if not held:
            return
        self._stalled += elapsed
        if self._stalled < self._warn_after:
            return
        if not self._warned:
            self._warned = True
            _log.warning("worker.loop_blocked", **self._culprit(loop, held), blocked_seconds=round(self._stalled, 1))
        overrun = [lease for lease in held if lease.hard_at < now and not lease.done]
        if overrun:
            _log.error(
                "worker.loop_unresponsive",
                **self._culprit(loop, held),
                overrun=[lease.id for lease in overrun[:SHOWN_HANDLERS]],
                then="its leases are let go and the process ends",
            )
            self._let_go()
            self._on_unresponsive()

    @property
    def lag(self) -> float | None:
        """Seconds that the loop took to answer, the longest of the last ones; None before the first answer."""
        return None if self._slowest_at == float("-inf") else self._slowest

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asked_at = time.monotonic()
        self._answered = False
        try:
            loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop is closed: it will not run anything, and blocks nobody
            self._answered = True

    def _answer(self) -> None:
        now = time.monotonic()
        lag = now - self._asked_at
        if lag >= self._slowest or now - self._slowest_at > LAG_SECONDS:
            self._slowest, self._slowest_at = lag, now
        self._answered = True

    def _culprit(self, loop: asyncio.AbstractEventLoop, held: Collection[Lease]) -> dict[str, object]:
        task = asyncio.current_task(loop)
        for lease in held:
            if lease.task is task and task is not None:
                return {"handler": lease.job.handler, "job_id": lease.id, "at": self._place()}
        running = sorted({lease.job.handler for lease in held if lease.task is not None and not lease.done})
        return {"handlers": running[:SHOWN_HANDLERS], "at": self._place()}

    def _place(self) -> str:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the only way to see another thread's stack
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
