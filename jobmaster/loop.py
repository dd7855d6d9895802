"""The one loop: everything that runs again and again in the background is a `Loop` around a duty.

A duty is one `async` pass that returns how many seconds the next one may wait: 0 for "at once, there is more". The
loop adds what every duty needs and none should repeat: a start and a stop, wake-ups, jitter, back-off after an error,
one log line per fault and the numbers a health check reads. Time and randomness are handed in.
"""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.model.errors import StoreError

JITTER = 0.25
"""Idle sleeps vary by this share, so that processes started together do not poll together."""
BACKOFF_FIRST = 0.1
BACKOFF_CAP = 5.0

_log = structlog.get_logger("jobmaster.loop")


class Health(Struct, frozen=True):
    """How a loop is doing."""

    passes: int = 0
    failures: int = 0
    """In a row, since the last good pass."""
    errors: int = 0
    """Ever."""
    last_success: float | None = None
    """Monotonic time of the last good pass's end; None: there was none yet."""
    last_error: str | None = None


class Loop:
    """Runs `duty` until stopped. An exception never ends it.

    What the duty returns is slept exactly if it is shorter than `idle`, which is the longest a duty is ever left
    unasked; from there on `idle` ± 25 % is slept. After an exception the pause doubles from 0.1 to 5 s, jittered.
    """

    def __init__(
        self, name: str, duty: Callable[[], Awaitable[float]], *, clock: Clock, rng: random.Random, idle: float = 1.0
    ) -> None:
        self.name = name
        self.health = Health()
        self._duty = duty
        self._clock = clock
        self._rng = rng
        self._idle = idle
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._woken = False
        self._stopping = False
        self._backing_off = False
        self._again = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def running(self) -> bool:
        """Started and not stopped yet."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Run on the current event loop from now on; the first pass follows at once. May be called once."""
        if self._task is not None or self._stopping:
            raise RuntimeError(f"the loop {self.name!r} was started or stopped already; make a new one")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._task = self._loop.create_task(self._run(), name=f"jobmaster:{self.name}")

    async def pass_once(self) -> float:
        """One pass of the duty, without the loop; what it raises is raised."""
        return await self._duty()

    async def stop(self, grace: float = 5.0) -> None:
        """No further pass begins. One under way may finish for `grace` real seconds and is cancelled then: its store
        calls are idempotent, so being cut short equals an answer that was lost. Returns when it has ended. A second
        call, or one on a loop that never started, does nothing."""
        self._stopping = True
        self._woken = False
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        self.wake()
        done, _ = await asyncio.wait({task}, timeout=grace)
        if not done:
            _log.warning("loop.cut_short", duty=self.name, after_seconds=grace)
            task.cancel()
            await asyncio.wait({task})

    def wake(self) -> None:
        """Have a pass begin as soon as may be; from any thread. During a pass: another one follows it. A pause after a
        failure is not cut short: under load hints come all the time, and would make of it no pause at all."""
        if self._woken or (self._backing_off and not self._stopping):
            return  # somebody was here before, and nothing has looked since
        self._woken = True
        loop = self._loop
        if loop is None:
            return
        if threading.get_ident() == self._thread:
            self._rouse()
        else:
            try:
                loop.call_soon_threadsafe(self._rouse)
            except RuntimeError:  # the event loop is closed, nothing is left to wake
                return

    def try_again(self) -> None:
        """What made the last pass fail may be mended: have one begin at once. On the loop's own event loop."""
        self._again = True
        self._rouse()

    def _rouse(self) -> None:
        if self._waiter is not None:
            _end(self._waiter)

    async def _run(self) -> None:
        while not self._stopping:
            # Cleared before the pass, not after it: what happens while the duty looks must lead to another look.
            self._woken = self._backing_off = self._again = False
            try:
                wait = await self._duty()
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                wait = self._failed(error)
            except Exception as error:  # every other fault is the duty's, and it gets another chance
                wait = self._failed(error)
            else:
                wait = self._succeeded(wait)
            if wait <= 0 or self._woken or self._again:
                await asyncio.sleep(0)
            else:
                await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = self._timer(loop, seconds, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            timer.cancel()

    def _timer(
        self, loop: asyncio.AbstractEventLoop, seconds: float, waiter: asyncio.Future[None]
    ) -> asyncio.TimerHandle | asyncio.Task[None]:
        """Ends the wait for `waiter`, and only for that: a timer left behind must not cut a later pause short."""
        if isinstance(self._clock, SystemClock):
            # No task where time is real: an idle process does little else than begin and end pauses.
            return loop.call_later(seconds, _end, waiter)
        task = loop.create_task(self._clock.sleep(seconds))
        task.add_done_callback(lambda _: _end(waiter))
        return task

    def _succeeded(self, wait: float) -> float:
        before = self.health
        self.health = Health(before.passes + 1, 0, before.errors, self._clock.mono(), before.last_error)
        if before.failures:
            _log.info("loop.recovered", duty=self.name, failures=before.failures)
        return wait if wait < self._idle else self._idle * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _failed(self, error: BaseException) -> float:
        before = self.health
        failures = before.failures + 1
        text = f"{type(error).__name__}: {error}"[:300]
        self.health = Health(before.passes + 1, failures, before.errors + 1, before.last_success, text)
        if not isinstance(error, StoreError):
            _log.error("loop.failed", duty=self.name, failures=failures, exc_info=error)
        elif failures == 1:
            # A store that does not answer is an expected kind of trouble: said once per outage.
            _log.warning("loop.store_trouble", duty=self.name, error=text)
        # Hints that came during the pass have had theirs.
        self._backing_off, self._woken = True, False
        backoff = min(BACKOFF_CAP, BACKOFF_FIRST * 2.0 ** min(failures - 1, 16))
        return backoff * self._rng.uniform(1 - JITTER, 1 + JITTER)


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
