"""Reaper: leases whose holder went silent end, and their jobs run again.

The danger is to end leases that only look expired: after a restart of the store, after this machine slept, after a
clock was set, holders need a moment to say that they live. Then the reaper waits for a lease's length and margin, and
ends until then only the leases of workers that are known to be dead. The clock that counts is the store's: it is
compared with this machine's monotonic one before every pass, and what it says is what the whole process goes by: a job
enqueued for now must not wait an hour because the store's clock was set back by one.
"""

from collections.abc import Callable

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.coordination.clock_guard import ClockGuard
from jobmaster.model.errors import StoreError
from jobmaster.store_time import StoreTime

BATCH = 200
POLL_SECONDS = 1.0
"""At most; a sixth of a lease where that is less. A dead worker's jobs run again within a lease and two seconds."""

_log = structlog.get_logger("jobmaster.reaper")


def _nothing() -> None:
    return


class Reaper:
    """Ends one agent's lapsed leases."""

    def __init__(
        self,
        agent: AgentTransport,
        time: StoreTime,
        clock: Clock,
        ttl_seconds: float,
        margin_seconds: float,
        on_requeued: Callable[[], None] = _nothing,
    ) -> None:
        """`on_requeued` is called when jobs became ready by it, for workers that need not wait for their next poll."""
        self._agent = agent
        self._time = time
        self._on_requeued = on_requeued
        self._clock = clock
        self.poll_seconds = min(POLL_SECONDS, ttl_seconds / 6)
        self._missed_seconds = ttl_seconds / 3
        self._wait_seconds = ttl_seconds + margin_seconds
        self._guard = ClockGuard(clock)
        # Connected newly: nobody knows what happened before.
        self._trust_at = clock.mono() + self._wait_seconds

    @property
    def trusts(self) -> bool:
        """Whether expired leases are ended, not only those of dead workers."""
        return self._clock.mono() >= self._trust_at

    async def run(self) -> float:
        """One pass."""
        try:
            passed, jumped = self._guard.elapsed(await self._time.measure())
            if jumped or passed > self._missed_seconds:
                self._trust_at = self._clock.mono() + self._wait_seconds
                _log.warning(
                    "reaper.waits",
                    agent=self._agent.name,
                    silent_seconds=round(passed, 3),
                    clock_jumped=jumped,
                    seconds=self._wait_seconds,
                )
            report = await self._agent.reap(BATCH, expired=self.trusts)
        except StoreError:
            # Whoever could not reach the store can't tell whether others could.
            self._trust_at = self._clock.mono() + self._wait_seconds
            raise
        if report.requeued or report.crashed:
            _log.warning(
                "reaper.lapsed", agent=self._agent.name, requeued=report.requeued, crashed=list(report.crashed)
            )
        if report.requeued:
            self._on_requeued()
        return 0 if report.more else self.poll_seconds
