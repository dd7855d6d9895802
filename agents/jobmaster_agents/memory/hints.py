"""Hints: who wants to be woken for what, across threads and event loops. Losing one costs a poll, nothing else."""

import asyncio
from collections.abc import Iterable

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import Signal

_KEPT_SIGNALS = 1_000


class Waiter:
    """One `wait` or `watch` in progress; belongs to the event loop it was made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] = self._loop.create_future()
        self._called = False

    def wake(self) -> None:
        """From any thread; the first call does it, as a batch of puts rings once per job."""
        if self._called:
            return
        self._called = True
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            # Its loop is closed: nobody waits any more.
            return

    async def wait(self, seconds: float, clock: Clock) -> bool:
        """Until woken (True) or `seconds` of this clock have passed."""
        nap = asyncio.ensure_future(clock.sleep(seconds))
        try:
            await asyncio.wait((self._woken, nap), return_when=asyncio.FIRST_COMPLETED)
            return self._woken.done()
        finally:
            nap.cancel()

    def _resolve(self) -> None:
        if not self._woken.done():
            self._woken.set_result(None)


class Hints:
    """Guarded by the store's lock, like everything else in it."""

    def __init__(self) -> None:
        self.rings: dict[str, int] = {}
        """Lane → how often jobs became ready there."""
        self._waiters: dict[str, set[Waiter]] = {}
        self._signals: dict[str, dict[Signal, None]] = {}

    def ring(self, lane: str) -> None:
        """A job of this lane may be claimed now."""
        self.rings[lane] = self.rings.get(lane, 0) + 1
        self._wake(f"lane:{lane}")

    def ended(self, job_id: str) -> None:
        """Whoever watches this job should look."""
        self._wake(f"job:{job_id}")

    def enter(self, lanes: Iterable[str] = (), ids: Iterable[str] = ()) -> Waiter:
        """Begin to wait on the running loop; pair it with `leave`."""
        waiter = Waiter()
        for topic in _topics(lanes, ids):
            self._waiters.setdefault(topic, set()).add(waiter)
        return waiter

    def leave(self, waiter: Waiter, lanes: Iterable[str] = (), ids: Iterable[str] = ()) -> None:
        for topic in _topics(lanes, ids):
            waiters = self._waiters[topic]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[topic]

    def leave_signal(self, signal: Signal) -> None:
        kept = self._signals.setdefault(signal.worker, {})
        kept[signal] = None
        if len(kept) > _KEPT_SIGNALS:
            del kept[next(iter(kept))]

    def take_signals(self, worker: str) -> list[Signal]:
        return list(self._signals.pop(worker, ()))

    def _wake(self, topic: str) -> None:
        for waiter in self._waiters.get(topic, ()):
            waiter.wake()


def _topics(lanes: Iterable[str], ids: Iterable[str]) -> list[str]:
    return [*(f"lane:{lane}" for lane in lanes), *(f"job:{job_id}" for job_id in ids)]
