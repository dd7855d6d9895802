"""Planning a batch of schedules: from what a store has read to what it has to write, in one transaction. Pure.

A store goes four steps: `Batch` decides by schedule; the store reads the occurrences and jobs that `Batch` names;
`draw_up` turns both into rows; the store writes them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import structlog
from msgspec.structs import replace

from jobmaster.contracts.entries import Placement
from jobmaster.contracts.scheduling import (
    Blocking,
    Occurrence,
    Planning,
    PlanReport,
    Schedule,
    ScheduleState,
    TickState,
)
from jobmaster.master.rules import new_placement
from jobmaster.master.ticks import Decision, decide, jitter_us
from jobmaster.model.errors import JobMasterError
from jobmaster.model.ids import occurrence_id
from jobmaster.model.job import Job
from jobmaster.model.states import TERMINAL, JobState
from jobmaster.model.terms import Overlap

TickKey = tuple[str, int]

_log = structlog.get_logger("jobmaster.planner")

DELIVER_US = 5_000_000
"""How long the planner of a tick has to hand it over before others do: short, as a tick is late soon, and doing it
twice does no harm."""
BROKEN_US = 60_000_000
"""When a schedule is looked at again whose rule can't be read."""


@dataclass
class Batch:
    """Schedules that are to be looked at, and what is decided about them."""

    schedules: Sequence[Schedule]
    planning: Planning
    now_us: int
    decisions: dict[str, Decision] = field(default_factory=dict)
    blocking: list[Blocking] = field(default_factory=list)
    left: int = 0
    """Schedules not decided, as the batch has jobs enough."""

    def decide(self, last: Mapping[str, Job]) -> None:
        """`last`: of the jobs of `last_jobs`, those that are known."""
        jobs = 0
        for number, schedule in enumerate(self.schedules):
            if jobs >= self.planning.jobs:
                self.left = len(self.schedules) - number
                return
            previous = None if schedule.last_job is None else last.get(schedule.last_job)
            decision = self._decide(schedule, previous)
            if decision.blocked and previous is not None:
                cancel = schedule.terms.overlap is Overlap.CANCEL_PREVIOUS
                self.blocking.append(Blocking(schedule.key, previous, cancel))
            else:
                self.decisions[schedule.key] = decision
                jobs += sum(tick.skipped is None for tick in decision.ticks)

    def _decide(self, schedule: Schedule, previous: Job | None) -> Decision:
        ended = None
        if previous is None or previous.state in TERMINAL:
            ended = True
        elif previous.id in self.planning.ended:
            ended = self.planning.ended[previous.id]
        try:
            return decide(schedule, self.now_us, self.planning.ahead_us, ended)
        except JobMasterError as error:
            _log.error("planner.unreadable", schedule=schedule.key, error=str(error))
            return Decision(next_us=schedule.next_us, look_us=self.now_us + BROKEN_US)

    @property
    def last_jobs(self) -> list[str]:
        """Jobs of which the decision depends."""
        return [
            schedule.last_job
            for schedule in self.schedules
            if schedule.last_job is not None and schedule.terms.overlap is not Overlap.ALLOW
        ]

    @property
    def keys(self) -> list[str]:
        """Schedules with ticks to be written."""
        return [key for key, decision in self.decisions.items() if decision.ticks]

    @property
    def span(self) -> tuple[int, int]:
        """The first and the last tick to be written."""
        ticks = [tick.at_us for decision in self.decisions.values() for tick in decision.ticks]
        return (min(ticks), max(ticks)) if ticks else (0, -1)

    @property
    def job_ids(self) -> list[str]:
        """Jobs that will be made, if nobody has made them."""
        return [
            occurrence_id(key, tick.at_us)
            for key, decision in self.decisions.items()
            for tick in decision.ticks
            if tick.skipped is None
        ]


@dataclass
class Rows:
    """What the store has to write."""

    new: list[Occurrence] = field(default_factory=list)
    renewed: list[Occurrence] = field(default_factory=list)
    """Known ones, to be replaced."""
    placements: list[Placement] = field(default_factory=list)
    """Jobs whose id is free."""
    replaced: list[Placement] = field(default_factory=list)
    """Jobs that take the place of an earlier epoch."""
    moved: list[tuple[Schedule, Schedule]] = field(default_factory=list)
    """Schedules as they were and as they are now."""
    missed: int = 0
    overlapped: int = 0


def draw_up(batch: Batch, ticks: Mapping[TickKey, Occurrence], jobs: Mapping[str, Job]) -> Rows:
    """`ticks`: the occurrences there are of the batch's ticks; `jobs`: those known of its `job_ids`."""
    rows = Rows()
    maker = TickWriter(batch.planning, batch.now_us, rows)
    for schedule in batch.schedules:
        decision = batch.decisions.get(schedule.key)
        if decision is None:
            continue
        last = schedule.last_job
        for tick in decision.ticks:
            known = ticks.get((schedule.key, tick.at_us))
            if tick.skipped is not None:
                maker.skip(schedule, tick.at_us, tick.skipped, known)
            else:
                last = maker.run(schedule, tick.at_us, known, jobs) or last
        rows.moved.append((schedule, _moved(schedule, decision, last, batch.now_us)))
    return rows


def _moved(schedule: Schedule, decision: Decision, last: str | None, now_us: int) -> Schedule:
    if decision.next_us is None:
        return replace(schedule, state=ScheduleState.ENDED, last_job=last)
    return replace(schedule, next_us=decision.next_us, look_us=decision.look_us, last_job=last)


class TickWriter:
    """Turns ticks into rows."""

    def __init__(self, planning: Planning, now_us: int, rows: Rows) -> None:
        self._agents = planning.agents
        self._instead = planning.instead
        self._draws = cycle(planning.draws)
        self._lane_draws = {lane: cycle(drawn) for lane, drawn in planning.lane_draws.items()}
        self._now_us = now_us
        self._rows = rows

    def skip(self, schedule: Schedule, tick_us: int, why: str, known: Occurrence | None) -> None:
        """Remember that the tick is passed over, unless it has a record."""
        if known is not None:
            return
        self._rows.new.append(self._occurrence(schedule, tick_us, TickState.SKIPPED, why))
        self._rows.missed += why == "misfire"
        self._rows.overlapped += why == "overlap"

    def run(
        self,
        schedule: Schedule,
        tick_us: int,
        known: Occurrence | None,
        jobs: Mapping[str, Job],
        note: str | None = None,
    ) -> str | None:
        """Make the tick's job, once and for all; its id, if the tick has a job now."""
        if known is not None and known.state is TickState.SKIPPED and note is None:
            return None
        occurrence = self._occurrence(schedule, tick_us, TickState.PLANNED, note)
        if known is None:
            self._rows.new.append(occurrence)
        elif known.state is not TickState.PLANNED:
            self._rows.renewed.append(occurrence)
        else:
            return known.job_id
        before = jobs.get(occurrence.job_id)
        if before is None:
            self._rows.placements.append(self._placement(schedule, tick_us, occurrence.job_id, None))
        elif known is not None and before.state not in _RAN:
            self._rows.replaced.append(self._placement(schedule, tick_us, occurrence.job_id, before))
        return occurrence.job_id

    def _occurrence(self, schedule: Schedule, tick_us: int, state: TickState, note: str | None) -> Occurrence:
        return Occurrence(
            schedule=schedule.key,
            tick_us=tick_us,
            job_id=occurrence_id(schedule.key, tick_us),
            state=state,
            note=note,
            planned_us=self._now_us,
        )

    def _placement(self, schedule: Schedule, tick_us: int, job_id: str, before: Job | None) -> Placement:
        agent = None if schedule.agent is None else self._instead.get(schedule.agent, schedule.agent)
        if agent is None and before is not None and before.agent in self._agents:
            # Where its earlier epoch went: should that be there still, it is replaced.
            agent = before.agent
        agent = agent or next(self._lane_draws.get(schedule.lane, self._draws))
        job = Job(
            id=job_id,
            handler=schedule.handler,
            lane=schedule.lane,
            priority=schedule.priority,
            state=JobState.DISPATCHING,
            epoch=1 if before is None else before.epoch + 1,
            version=1 if before is None else before.version + 1,
            agent=agent,
            created_us=self._now_us,
            original_due_us=tick_us,
            due_us=tick_us + jitter_us(schedule, tick_us),
            schedule=schedule.key,
            data=schedule.data,
            policy=schedule.policy,
            labels=schedule.labels,
        )
        return new_placement(Placement(job, self._now_us + DELIVER_US, self._agents[agent]), self._now_us)


_RAN = frozenset({JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED})
"""States in which the job of a withdrawn tick was not taken back after all."""


def report(batch: Batch, rows: Rows, look_us: int | None) -> PlanReport:
    """What the planner is told."""
    placements = (*rows.placements, *rows.replaced)
    late_us = max((batch.now_us - placement.job.due_us for placement in placements), default=0)
    return PlanReport(
        now_us=batch.now_us,
        placements=placements,
        blocking=tuple(batch.blocking),
        planned=len(placements),
        late_us=max(0, late_us),
        missed=rows.missed,
        overlapped=rows.overlapped,
        more=batch.left > 0 or len(batch.schedules) >= batch.planning.limit,
        look_us=look_us,
    )


def servable(schedules: Iterable[Schedule], planning: Planning) -> list[Schedule]:
    """Those whose agent this planner serves."""
    return [
        schedule
        for schedule in schedules
        if (
            schedule.agent in planning.agents or schedule.agent in planning.instead
            if schedule.agent is not None
            else planning.lane_draws.get(schedule.lane, planning.draws)
        )
    ]


def covered(planning: Planning) -> list[str]:
    """The agents whose bound schedules this planning is about."""
    return [*{*planning.agents, *planning.instead}]


def jumped(planning: Planning, now_us: int) -> bool:
    """Whether store time is not what the planner can believe."""
    early = planning.not_before_us is not None and now_us < planning.not_before_us
    return early or (planning.not_after_us is not None and now_us > planning.not_after_us)
