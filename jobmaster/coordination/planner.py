"""Planner: schedules become jobs, exactly one per tick.

What makes it one job is the master's transaction, by its own clock; any number of planners may run at once, with clocks
as wrong as they like. On a master that several processes reach over a network one of them leads, for terms of a few
seconds, so that the others don't do the same work in vain; nothing relies on there being one.

Ticks whose jobs may overlap are planned ahead, so that a planner that ends leaves the next ones waiting on agents. The
others are planned when they are due, from what the job before has come to.
"""

from collections.abc import Mapping
from random import Random

import structlog
from msgspec.structs import replace

from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import HeldAnswer, Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import Blocking, Planning, PlanReport
from jobmaster.contracts.values import Revoke, RevokeAnswer, RevokeKind, Signal, SignalKind
from jobmaster.coordination.clock_guard import JUMP_SECONDS, ClockGuard
from jobmaster.coordination.delivery import Delivery
from jobmaster.coordination.drawing import planning_for
from jobmaster.model.errors import StoreError
from jobmaster.model.states import TERMINAL, JobState
from jobmaster.telemetry.failpoints import failpoint
from jobmaster.telemetry.probes import probe

BATCH = 1_000
POLL_SECONDS = 2.0
LATE_SECONDS = 0.001
"""A tick is met this much late, so that a timer that fires a little early does not ask for it twice."""
TERM_SECONDS = 2.0
TRUST_MARGIN_SECONDS = 0.5
"""How long before its end a planner no longer counts on its term."""
SLOW_SECONDS = 2.0
"""An answer that took longer says too little about the store's time to be compared."""
DUTY = "planner"
LATE_US = 1_000_000
"""From when a planned tick counts as late."""

_log = structlog.get_logger("jobmaster.planner")


class Planner:
    """Plans what is due and sleeps until the next tick, two seconds at most: other processes add schedules too."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        deliveries: Mapping[str, Delivery],
        *,
        clock: Clock,
        rng: Random,
        pause_seconds: float,
        ahead_us: int,
        node: str | None = None,
    ) -> None:
        """`node`: who this process is among those that may lead; None: it does not ask who leads."""
        self._master = master
        self._agents = agents
        self._deliveries = deliveries
        self._clock = clock
        self._rng = rng
        self._pause_seconds = pause_seconds
        self._ahead_us = ahead_us
        self._node = node
        self._led_before = False
        self._trusted_until = clock.mono()
        self._guard = ClockGuard(clock)
        self._doubt = 0.0
        """How long the store took to say what time it is."""
        self._seen: tuple[int, float] | None = None
        """Store time and monotonic time of the pass before."""
        self._resume_at = clock.mono()

    async def run(self) -> float:
        """One pass."""
        sent = self._clock.mono()
        soon = await self._master.soonest(self._agents.covered)
        self._doubt = self._clock.mono() - sent
        if (wait := self._distrust(soon.now_us)) > 0:
            return wait
        if soon.look_us is None or soon.look_us > soon.now_us:
            return _until(soon.look_us, soon.now_us)
        if (wait := await self._follow()) > 0:
            return wait
        return await self._plan()

    async def close(self) -> None:
        """Let another process lead at once. Raises nothing."""
        if self._node is not None and self._led_before:
            try:
                await self._master.resign(DUTY, self._node)
            except StoreError:
                # The term runs out by itself.
                return

    def _distrust(self, now_us: int) -> float:
        """Seconds for which store time is not to be believed: it was set, or this process slept through its passes. To
        act at once would fire every schedule, though nobody is late."""
        mono = self._clock.mono()
        if self._doubt > SLOW_SECONDS:
            # Nobody can say when in between the store looked at its clock: compare from the next answer on.
            self._guard = ClockGuard(self._clock)
        elif self._guard.elapsed(now_us)[1]:
            _log.warning("planner.clock_jumped", pause_seconds=self._pause_seconds)
            self._resume_at = mono + self._pause_seconds
        self._seen = now_us, mono
        return self._resume_at - mono

    async def _follow(self) -> float:
        """Seconds for which somebody else is trusted to plan; 0 if it is this process."""
        sent = self._clock.mono()
        if self._node is None or sent < self._trusted_until:
            return 0
        term = await self._master.lead(DUTY, self._node, round(TERM_SECONDS * 1e6))
        if term.holder == self._node:
            self._led_before = True
            self._trusted_until = sent + TERM_SECONDS - TRUST_MARGIN_SECONDS
            return 0
        return min(POLL_SECONDS, max(LATE_SECONDS, (term.until_us - term.now_us) / 1e6))

    async def _plan(self) -> float:
        planning = await self._planning()
        report = await self._act(planning)
        if report.blocking:
            ended = {item.job.id: await self._has_ended(item) for item in report.blocking}
            report = await self._act(replace(planning, ended=ended))
        if report.more or report.blocking or report.jumped:
            return 0
        return _until(report.look_us, report.now_us)

    async def _planning(self) -> Planning:
        assert self._seen is not None
        leeway_us = round((JUMP_SECONDS + self._doubt) * 1e6)
        expected_us = self._seen[0] + round((self._clock.mono() - self._seen[1]) * 1e6)
        return await planning_for(
            self._agents,
            self._rng,
            limit=BATCH,
            ahead_us=self._ahead_us,
            not_before_us=expected_us - leeway_us,
            not_after_us=expected_us + leeway_us,
        )

    async def _act(self, planning: Planning) -> PlanReport:
        report = await self._master.plan(planning)
        failpoint("schedule.tick")
        by_agent: dict[str, list[Placement]] = {}
        for placement in report.placements:
            assert placement.job.agent is not None
            by_agent.setdefault(placement.job.agent, []).append(placement)
        for agent, placements in by_agent.items():
            self._deliveries[agent].offer(placements)
        _tell(report)
        return report

    async def _has_ended(self, item: Blocking) -> bool:
        """Whether the job before has, as its agent says; the master hears of it a moment later. Where a store does not
        answer it has not."""
        try:
            return await (self._cancel(item) if item.cancel else self._ask(item))
        except StoreError:
            return False

    async def _ask(self, item: Blocking) -> bool:
        agent = item.job.agent
        if agent is not None and agent in self._agents:
            (job,) = await self._agents[agent].find([item.job.id])
            if job is not None:
                return job.state in TERMINAL
        # Not there, or no longer: what has left its agent is in the history now.
        (known,) = await self._master.get([item.job.id])
        return known is None or known.state in TERMINAL

    async def _cancel(self, item: Blocking) -> bool:
        job = item.job
        if job.state in (JobState.HELD, JobState.AWAITING):
            (answer,) = await self._master.cancel([job.id])
            return answer is HeldAnswer.CHANGED
        if job.agent is None or job.agent not in self._agents:
            return False
        agent = self._agents[job.agent]
        (revocation,) = await agent.revoke([Revoke(job.id, job.epoch, RevokeKind.CANCEL)])
        if revocation.was_running and revocation.worker is not None:
            await agent.signal([Signal(revocation.worker, SignalKind.CANCEL, job.id)])
        return revocation.answer is not RevokeAnswer.RUNNING


def _tell(report: PlanReport) -> None:
    for name, times in (
        ("tick_planned", report.planned),
        ("tick_missed", report.missed),
        ("tick_overlapped", report.overlapped),
        ("tick_late", int(report.late_us > LATE_US)),
    ):
        if times:
            probe(name, times)
    if report.missed:
        _log.warning("planner.missed", ticks=report.missed)


def _until(look_us: int | None, now_us: int) -> float:
    return POLL_SECONDS if look_us is None else min(POLL_SECONDS, max(0, look_us - now_us) / 1e6 + LATE_SECONDS)
