"""Jobs whose data a later release wrote, met by a worker of an earlier one: left to others, and nobody's attempt.

The first such job of a handler is given back as it came, and the handler is not claimed for some seconds: while a new
release is rolled out, its workers take those jobs. If the same job is still there afterwards, there is no such worker,
as after a roll-back: then for a minute each of these jobs is put off by a minute when it is met, so that what this
release can run is not behind them for ever.
"""

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import Amendment
from jobmaster.telemetry.probes import probe
from jobmaster.worker.lease import Lease

PAUSE_SECONDS = 5.0
PUT_OFF_SECONDS = 60.0
MOST = 10_000
"""Ids remembered."""

_log = structlog.get_logger("jobmaster.worker")


class NewerData:
    """Of one worker."""

    def __init__(self, agent: AgentTransport, handlers: frozenset[str], clock: Clock) -> None:
        self._agent = agent
        self._all = handlers
        self._clock = clock
        self._until: dict[str, float] = {}
        """Handlers not claimed, and until when."""
        self._met: set[str] = set()
        self._nobody_until: dict[str, float] = {}
        """Handlers whose newer jobs nobody takes, and until when that is believed."""
        self._stuck: list[Lease] = []
        self._told: set[tuple[str, int]] = set()

    def met(self, lease: Lease, version: int, known: int) -> None:
        """This claim can't be run here. Its lease is given back by whoever asks."""
        job = lease.job
        probe("newer_data")
        if (job.handler, version) not in self._told:
            self._told.add((job.handler, version))
            _log.warning(
                "worker.newer_data",
                handler=job.handler,
                job_id=job.id,
                data_version=version,
                known_here=known,
                then="it is left to workers of the later release",
            )
        now = self._clock.mono()
        if job.id in self._met:
            self._nobody_until[job.handler] = now + PUT_OFF_SECONDS
        if now < self._nobody_until.get(job.handler, now):
            self._stuck.append(lease)
            self._until.pop(job.handler, None)
            return
        if len(self._met) >= MOST:
            self._met.clear()
        self._met.add(job.id)
        self._until[job.handler] = now + PAUSE_SECONDS

    def claimable(self) -> frozenset[str]:
        """The handlers to claim now."""
        if not self._until:
            return self._all
        now = self._clock.mono()
        self._until = {name: until for name, until in self._until.items() if until > now}
        return self._all.difference(self._until)

    @property
    def resumes_in(self) -> float:
        """Seconds until a handler is claimed again that is not now; infinite if all are."""
        return min(self._until.values(), default=float("inf")) - self._clock.mono()

    async def put_off(self) -> None:
        """Have the jobs that nobody takes wait. Raises what the store raises."""
        if not self._stuck:
            return
        # Those that were given back meanwhile; a lease that was not yet is met again.
        stuck, self._stuck = self._stuck, []
        due_us = await self._agent.store_now_us() + round(PUT_OFF_SECONDS * 1e6)
        await self._agent.amend(
            [Amendment(id=lease.id, version=lease.job.version + 1, due_us=due_us) for lease in stuck]
        )
