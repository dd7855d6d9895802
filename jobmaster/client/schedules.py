"""Schedules as a client changes them: saved by key, turned on and off, run, filled in.

The master decides in one transaction what a change takes back; the agents are told after it, and the answer says where
that came too late.
"""

from datetime import datetime
from random import Random
from typing import Any

from msgspec.structs import replace

from jobmaster.agents_open import Agents
from jobmaster.client.definitions import Definitions
from jobmaster.client.drafting import Drafting, Route
from jobmaster.client.placing import Placing
from jobmaster.client.schedule_drafting import ScheduleDrafting
from jobmaster.client.times import to_us
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import Saved, Schedule, ScheduleState
from jobmaster.coordination.drawing import planning_for
from jobmaster.enqueue import ScheduleOptions
from jobmaster.model.errors import KeyInvalid, OptionInvalid, ScheduleNotFound
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.names import check_key
from jobmaster.recurrence import Recurrence
from jobmaster.schedule_views import (
    Backfilled,
    OccurrenceInfo,
    ScheduleChange,
    TickPreview,
    occurrence_info,
    schedule_change,
)
from jobmaster.withdrawal import take_back

MOST_BACKFILLED = 10_000
BACKFILL_BATCH = 500
MOST_PREVIEWED = 10_000
MOST_OCCURRENCES = 1_000


class ScheduleClient:
    """Changes and shows schedules. Every call raises `MasterUnavailable` where the master does not answer."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        definitions: Definitions,
        drafting: Drafting,
        schedule_drafting: ScheduleDrafting,
        placing: Placing,
        rng: Random,
    ) -> None:
        self._master = master
        self._agents = agents
        self._definitions = definitions
        self._jobs = drafting
        self._drafting = schedule_drafting
        self._placing = placing
        self._rng = rng

    async def save(self, handler: Any, when: object, data: object, key: object, options: ScheduleOptions) -> Schedule:
        """The schedule as it is stored afterwards. Raises `KeyInvalid`, also for one that belongs to a profile,
        `OptionInvalid`, `DataInvalid`, `HandlerUnknown`."""
        recipe = await self._definitions.recipe(handler)
        given = self._drafting.schedule(recipe, when, data, key, options)
        saved = await self._master.save_schedule(given)
        _check_own(saved.schedule)
        await self._take_back(saved)
        return saved.schedule

    async def edit(self, key: str, when: object, data: object, options: ScheduleOptions) -> ScheduleChange:
        """Raises as `save`, and `ScheduleNotFound`."""
        stored = await self.get(key)
        _check_own(stored)
        recipe = await self._definitions.recipe(stored.handler)
        return await self._take_back(
            await self._master.save_schedule(self._drafting.edited(stored, recipe, when, data, options))
        )

    async def turn(self, key: str, state: ScheduleState) -> ScheduleChange:
        """Raises `ScheduleNotFound`; `KeyInvalid` if one of a profile is to end."""
        if state is ScheduleState.ENDED:
            _check_own(await self.get(key))
        saved = await self._master.turn_schedule(check_key("schedule key", key), state)
        if saved is None:
            raise ScheduleNotFound(key)
        return await self._take_back(saved)

    async def get(self, key: str) -> Schedule:
        """Raises `ScheduleNotFound`."""
        stored = await self._master.schedule(check_key("schedule key", key))
        if stored is None:
            raise ScheduleNotFound(key)
        return stored

    async def run(self, key: str) -> tuple[str, str]:
        """Enqueue the schedule's job now, with a fresh id and no tick; id and agent. Raises `ScheduleNotFound`, and as
        an enqueue does."""
        stored = await self.get(key)
        recipe = replace(
            await self._definitions.recipe(stored.handler),
            lane=stored.lane,
            priority=stored.priority,
            agent=stored.agent,
        )
        now_us = self._placing.now_us()
        job = Job(
            id=new_id(),
            handler=stored.handler,
            lane=stored.lane,
            priority=stored.priority,
            created_us=now_us,
            original_due_us=now_us,
            due_us=now_us,
            schedule=stored.key,
            data=stored.data,
            policy=stored.policy,
            labels=stored.labels,
        )
        candidates = self._jobs.plan(recipe, {}).route.candidates
        placed = await self._placing.put(Route(candidates, through_master=False), [job])
        return job.id, placed[job.id]

    async def preview(self, key: str, count: int) -> tuple[TickPreview, ...]:
        """The next ticks, planned or not; none of one that has ended. Raises `ScheduleNotFound`."""
        if not 1 <= count <= MOST_PREVIEWED:
            raise OptionInvalid("count", count, f"1 to {MOST_PREVIEWED:,}")
        stored = await self.get(key)
        if stored.state is ScheduleState.ENDED:
            return ()
        start_us, end_us = stored.terms.start_us, stored.terms.end_us
        after_us = await self._master.store_now_us()
        if start_us is not None:
            after_us = max(after_us, start_us - 1)
        ticks = _rule(stored).preview(after_us, count)
        return tuple(TickPreview(tick.at, tick.mark) for tick in ticks if end_us is None or tick.at_us < end_us)

    async def occurrences(self, key: str, before: datetime | None, limit: int) -> tuple[OccurrenceInfo, ...]:
        """Ticks before that instant, latest first. Raises `ScheduleNotFound`."""
        if not 1 <= limit <= MOST_OCCURRENCES:
            raise OptionInvalid("limit", limit, f"1 to {MOST_OCCURRENCES:,}")
        await self.get(key)
        before_us = None if before is None else to_us("before", before)
        return tuple(map(occurrence_info, await self._master.occurrences(key, before_us, limit)))

    async def backfill(self, key: str, since: datetime, until: datetime) -> Backfilled:
        """Make the jobs of past ticks that have none, from one instant to before the other. Raises `ScheduleNotFound`,
        `OptionInvalid`."""
        since_us, until_us = to_us("since", since), to_us("until", until)
        stored = await self.get(key)
        if until_us <= since_us:
            raise OptionInvalid("until", until, "an instant after since")
        if until_us > await self._master.store_now_us():
            raise OptionInvalid("until", until, "an instant that has passed: later ticks are planned when they come")
        ticks: list[int] = []
        for tick_us in _rule(stored).between(since_us, until_us):
            if len(ticks) == MOST_BACKFILLED:
                raise OptionInvalid("since", since, f"a range of at most {MOST_BACKFILLED:,} ticks; fill it in parts")
            ticks.append(tick_us)
        planned = 0
        for start in range(0, len(ticks), BACKFILL_BATCH):
            planning = await planning_for(self._agents, self._rng)
            report = await self._master.backfill(key, ticks[start : start + BACKFILL_BATCH], planning)
            planned += report.planned
            await self._hand_off(report.placements)
        return Backfilled(planned, len(ticks) - planned)

    async def _hand_off(self, placements: tuple[Placement, ...]) -> None:
        by_agent: dict[str | None, list[Placement]] = {}
        for placement in placements:
            by_agent.setdefault(placement.job.agent, []).append(placement)
        for group in by_agent.values():
            await self._placing.hand_off(group)

    async def _take_back(self, saved: Saved) -> ScheduleChange:
        return schedule_change(saved, await take_back(self._master, self._agents, saved.taken))


def _check_own(schedule: Schedule) -> None:
    if schedule.profile is not None and schedule.state is not ScheduleState.ENDED:
        raise KeyInvalid(
            "schedule key",
            schedule.key,
            f"another key: this one belongs to profile {schedule.profile!r}; change it in its code, or pause it",
        )


def _rule(schedule: Schedule) -> Recurrence:
    return Recurrence.from_json(schedule.recurrence).anchored(schedule.anchor_us)
