"""The lease keeper: prolongs every lease of a worker, from the claim until its settle or release was answered.

It runs on its own thread with its own event loop and its own handle onto the store, so that a handler which blocks the
worker's loop loses no lease. What it learns it hands over to the worker's loop, where runs are ended:

- `lost` or `cancelled`, from `extend`: that run is ended. A signal only makes it ask earlier.
- No answer: nothing happens here. Each lease says until when it can be trusted, reckoned from when the last good
  request was *sent*, and the worker's deadlines end the runs beyond it.
- The worker's loop answers no more: a warning names the handler that blocks it; if some run is past its timeout and
  its grace by then, the keeper lets all leases go and ends the process, as nothing else can end that handler.

Progress goes out with an early `extend`: at most once a second per job, all jobs together at most ten times a second.
"""

import asyncio
import os
import random
from collections.abc import Callable, Sequence

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import ExtendAnswer, Extension, Signal, SignalKind
from jobmaster.loop import Loop
from jobmaster.model.errors import StoreError
from jobmaster.model.job import Job
from jobmaster.telemetry.probes import probe
from jobmaster.worker.lease import Ending, Lease
from jobmaster.worker.stall import StallWatch
from jobmaster.worker.thread import KeeperThread

TICK_SECONDS = 0.25
"""How often signals are read while leases are held."""
IDLE_SECONDS = 2.5
"""How often when none is, ± 25 %."""
PROGRESS_SECONDS = 1.0
GATHER_SECONDS = 0.1
SECOND = 1_000_000
EXIT_UNRESPONSIVE = 75
"""EX_TEMPFAIL: a supervisor should start the process again."""

_log = structlog.get_logger("jobmaster.worker")


def exit_process() -> None:
    """End the process at once: its loop is blocked, so nothing can be ended in order."""
    os._exit(EXIT_UNRESPONSIVE)


class LeaseKeeper:
    """Holds the leases of one worker. `hold` and `drop` belong to the worker's loop, `progressed` to any thread, the
    rest happens on the keeper's."""

    def __init__(
        self,
        worker_id: str,
        *,
        agent: AgentTransport,
        ttl: float,
        beat: float,
        margin: float,
        end: Callable[[Lease, Ending], None],
        command: Callable[[Signal], None],
        clock: Clock,
        rng: random.Random,
        threaded: bool,
        on_unresponsive: Callable[[], None] = exit_process,
        tick: float = TICK_SECONDS,
        stall_warning: float | None = None,
    ) -> None:
        self.worker_id = worker_id
        self.ttl_us = round(ttl * SECOND)
        self.mono = clock.mono
        self._trust = ttl - margin
        self._beat = beat
        self._agent = agent
        self._end = end
        self._command = command
        self._tick_seconds = tick
        self._threaded = threaded
        self._held: set[Lease] = set()
        self._reported = False
        self._gathering_until = 0.0
        self._signals_at = float("-inf")
        self._called = False
        self._troubled = False
        self._let_go = False
        self._worker_loop: asyncio.AbstractEventLoop | None = None
        self._stall = StallWatch(on_unresponsive, self._give_up, stall_warning)
        self._loop = Loop("worker.keeper", self._tick, clock=clock, rng=rng, idle=IDLE_SECONDS)
        self._thread: KeeperThread | None = None

    def start(self) -> None:
        """Keep leases from now on. Called on the worker's loop."""
        self._worker_loop = asyncio.get_running_loop()
        if self._threaded:
            self._stall.start()
            self._thread = KeeperThread(self._loop, self.worker_id)
            self._thread.start()
        else:
            self._loop.start()

    async def stop(self) -> None:
        """Keep nothing any more; what is still held lapses."""
        if self._thread is not None:
            await self._thread.stop()
        else:
            await self._loop.stop()

    @property
    def held(self) -> int:
        """Leases not answered for yet."""
        return len(self._held)

    @property
    def loop_lag(self) -> float | None:
        """Seconds that the worker's loop took to answer, at its slowest lately; None where leases are kept on it."""
        return self._stall.lag

    def trusted(self, sent: float) -> float:
        """Until when an answer to a request sent at `sent` can be relied on."""
        return sent + self._trust

    def hold(self, jobs: Sequence[Job], sent: float) -> list[Lease]:
        """Keep the leases that a claim sent at `sent` has granted."""
        trusted = self.trusted(sent)
        leases = [Lease(job, self, sent, trusted) for job in jobs]
        idle = not self._held
        self._held.update(leases)
        if idle and leases:
            self._loop.wake()
        return leases

    def drop(self, lease: Lease) -> None:
        """Its settle or release was answered, or there is nothing left to keep."""
        self._held.discard(lease)

    def progressed(self, lease: Lease) -> None:
        """The handler reported progress: it goes out soon."""
        if not self._reported:
            self._reported = True
            self._loop.wake()

    def call(self) -> None:
        """There are signals: read them now. From any thread."""
        self._called = True
        self._loop.wake()

    async def _tick(self) -> float:
        held = self._held.copy()
        now = self.mono()
        if self._threaded:
            self._stall.look(held, now)
        if self._let_go:
            return IDLE_SECONDS
        wait = self._tick_seconds if held else IDLE_SECONDS
        items, wait = self._due(held, now, wait)
        if items:
            await self._extend(items)
        if self._called or now - self._signals_at >= (self._tick_seconds if held else IDLE_SECONDS / 2):
            await self._read_signals(held, now)
        return wait

    def _due(self, held: set[Lease], now: float, wait: float) -> tuple[list[tuple[Lease, Extension]], float]:
        """What to extend now, and how long to wait after it."""
        reported = False
        if self._reported and now >= self._gathering_until:
            # Cleared before looking: what is reported meanwhile leads to another look.
            self._reported = False
            reported = True
            self._gathering_until = now + GATHER_SECONDS
        elif self._reported:
            wait = min(wait, self._gathering_until - now)
        beat = self._trust - self._beat
        beating = any(lease.trust_until - now <= beat for lease in held)
        nearly = self._trust - self._beat / 2
        items = []
        for lease in held:
            fresh = lease.progress is not None and lease.progress != lease.progress_sent and not lease.done
            if fresh and now - lease.progress_at < PROGRESS_SECONDS:
                wait = min(wait, max(GATHER_SECONDS, lease.progress_at + PROGRESS_SECONDS - now))
                self._reported, fresh = True, False
            # One beat for all: those that are nearly due go along.
            if (reported and fresh) or (beating and lease.trust_until - now <= nearly):
                items.append((lease, _extension(lease, fresh)))
        return items, wait

    async def _extend(self, items: list[tuple[Lease, Extension]]) -> None:
        sent = self.mono()
        try:
            async with asyncio.timeout(self._beat):
                answers = await self._agent.extend([item for _, item in items], self.ttl_us)
        except (StoreError, TimeoutError) as error:
            if not self._troubled:
                _log.warning("worker.leases_not_extended", leases=len(items), error=str(error) or type(error).__name__)
            self._troubled = True
            return
        if self._troubled:
            self._troubled = False
            _log.info("worker.leases_extended_again", leases=len(items))
        for (lease, item), answer in zip(items, answers, strict=True):
            match answer:
                case ExtendAnswer.HELD:
                    lease.trust_until = self.trusted(sent)
                    if item.progress is not None:
                        lease.progress_sent = (item.progress, item.progress_note)
                        lease.progress_at = sent
                case ExtendAnswer.LOST:
                    self._lost(lease, Ending.LOST)
                case ExtendAnswer.CANCELLED:
                    self._lost(lease, Ending.CANCELLED)
                case ExtendAnswer.BUSY:
                    pass

    async def _read_signals(self, held: set[Lease], now: float) -> None:
        self._called = False
        self._signals_at = now
        try:
            signals = await self._agent.signals(self.worker_id)
        except StoreError:
            # Hints: the next beat tells the same.
            return
        named = {signal.job_id for signal in signals if signal.kind is SignalKind.CANCEL}
        if named:
            everything = None in named
            await self._extend([(one, _extension(one, False)) for one in held if everything or one.id in named])
        for signal in signals:
            if signal.kind is not SignalKind.CANCEL:
                self._hand_over(self._command, signal)

    def _lost(self, lease: Lease, ending: Ending) -> None:
        # A lease whose outcome is on its way is not current any more once that was applied.
        if lease not in self._held or lease.done or lease.completed is not None:
            return
        probe("lease_lost")
        _log.warning("worker.lease_lost", job_id=lease.id, handler=lease.job.handler, because=str(ending))
        self._hand_over(self._end, lease, ending)

    def _give_up(self) -> None:
        self._let_go = True

    def _hand_over(self, deed: Callable[..., None], *arguments: object) -> None:
        """Do it on the worker's loop."""
        if not self._threaded:
            deed(*arguments)
            return
        assert self._worker_loop is not None
        try:
            self._worker_loop.call_soon_threadsafe(deed, *arguments)
        except RuntimeError:  # that loop is closed: there is nothing left to end
            return


def _extension(lease: Lease, with_progress: bool) -> Extension:
    # Its start goes on record with the first beat, for all to see, and so that a lapse is known to have cut a run.
    started = lease.started_us is not None
    if with_progress and lease.progress is not None:
        return Extension(lease.id, lease.token, started, *lease.progress)
    return Extension(lease.id, lease.token, started)
