"""Planner: schedules become jobs, exactly one per tick.

A tick is planned when it is due, never earlier. What makes it one job is the master's compare-and-set of the watermark;
everything here may happen in two processes at once.
"""

from collections.abc import Mapping, Sequence
from random import Random

import structlog

from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import Occurrence, Placement, Schedule, ScheduleState
from jobmaster.contracts.master import MasterStore
from jobmaster.coordination.clock_guard import ClockGuard
from jobmaster.coordination.delivery import DISPATCH_US, Delivery
from jobmaster.coordination.drawing import draw_agent, put_deadline_us
from jobmaster.model.ids import occurrence_id
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.store_time import StoreTime
from jobmaster.telemetry.failpoints import failpoint

BATCH = 200
POLL_SECONDS = 2.0
LATE_SECONDS = 0.001
"""A tick is met this much late, so that a timer that fires a little early does not ask for it twice."""

_log = structlog.get_logger("jobmaster.planner")


def due_tick(schedule: Schedule, now_us: int) -> tuple[int, int] | None:
    """The tick of a schedule to be planned now, and the one after it; None while its next one lies ahead.

    After a downtime it is the latest tick missed: those before it are passed over.
    """
    if schedule.state is not ScheduleState.ACTIVE or schedule.next_us > now_us:
        return None
    missed = (now_us - schedule.next_us) // schedule.interval_us
    tick_us = schedule.next_us + missed * schedule.interval_us
    return tick_us, tick_us + schedule.interval_us


def occurrence(
    schedule: Schedule, tick_us: int, next_us: int, agent: str, now_us: int, put_deadline: int
) -> Occurrence:
    """The decision to run one tick: its job, already `dispatching`, and where the watermark goes."""
    job = Job(
        id=occurrence_id(schedule.key, tick_us),
        handler=schedule.handler,
        lane=schedule.lane,
        priority=schedule.priority,
        state=JobState.DISPATCHING,
        agent=agent,
        created_us=now_us,
        original_due_us=tick_us,
        due_us=tick_us,
        schedule=schedule.key,
        data=schedule.data,
        policy=schedule.policy,
        labels=schedule.labels,
    )
    return Occurrence(
        schedule=schedule.key,
        tick_us=tick_us,
        watermark_us=schedule.next_us,
        next_us=next_us,
        placement=Placement(job, now_us + DISPATCH_US, put_deadline),
    )


class Planner:
    """Plans what is due and sleeps until the next tick, two seconds at most: other processes add schedules too."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        deliveries: Mapping[str, Delivery],
        *,
        master_time: StoreTime,
        clock: Clock,
        rng: Random,
        pause_seconds: float,
    ) -> None:
        self._master = master
        self._agents = agents
        self._deliveries = deliveries
        self._master_time = master_time
        self._clock = clock
        self._rng = rng
        self._pause_seconds = pause_seconds
        self._guard = ClockGuard(clock)
        self._resume_at = clock.mono()

    async def run(self) -> float:
        """One pass."""
        if (wait := await self._distrust()) > 0:
            return wait
        ahead_us = round(2 * POLL_SECONDS * 1e6)
        soon = await self._master.due_schedules(await self._master_time.fresh_us() + ahead_us, BATCH)
        # Read after the schedules: a tick that came due while they were asked for is due now.
        now_us = self._master_time.now_us()
        decided = [made for schedule in soon if (made := await self._decide(schedule, now_us)) is not None]
        if decided:
            await self._plan(decided)
        if len(soon) == BATCH and len(decided) == BATCH:
            return 0
        following = [made.next_us for made in decided]
        following += [schedule.next_us for schedule in soon if due_tick(schedule, now_us) is None]
        return min(
            [POLL_SECONDS, *((next_us - self._master_time.now_us()) / 1e6 + LATE_SECONDS for next_us in following)]
        )

    async def _distrust(self) -> float:
        """Seconds for which the time is not to be believed."""
        _, jumped = self._guard.elapsed()
        if jumped:
            _log.warning("planner.clock_jumped", pause_seconds=self._pause_seconds)
            self._resume_at = self._clock.mono() + self._pause_seconds
            await self._master_time.measure()
        return self._resume_at - self._clock.mono()

    async def _decide(self, schedule: Schedule, now_us: int) -> Occurrence | None:
        ticks = due_tick(schedule, now_us)
        if ticks is None:
            return None
        agent = await draw_agent(self._agents, schedule.agent, self._rng)
        if agent is None:
            return None
        return occurrence(schedule, *ticks, agent, now_us, await put_deadline_us(self._agents, agent))

    async def _plan(self, decided: Sequence[Occurrence]) -> None:
        planned = await self._master.plan(decided)
        failpoint("schedule.tick")
        by_agent: dict[str, list[Placement]] = {}
        for made, mine in zip(decided, planned, strict=True):
            if mine and made.placement.job.agent is not None:
                by_agent.setdefault(made.placement.job.agent, []).append(made.placement)
        for agent, placements in by_agent.items():
            self._deliveries[agent].offer(placements)
