"""Scheduling: the calls that make, show and change schedules; part of the scheduler."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack, overload

from jobmaster.client.schedule_drafting import UNSET
from jobmaster.client.schedules import ScheduleClient
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import Schedule, ScheduleState
from jobmaster.enqueue import ScheduleOptions
from jobmaster.enqueuing import ContextFunction, Data, Reference
from jobmaster.handle import JobHandle
from jobmaster.handler import JobHandler
from jobmaster.recurrence import Recurrence
from jobmaster.schedule_views import (
    Backfilled,
    OccurrenceInfo,
    ScheduleChange,
    ScheduleDiff,
    ScheduleInfo,
    TickPreview,
    schedule_info,
)

if TYPE_CHECKING:
    from jobmaster.scheduler import Scheduler

When = Recurrence | timedelta | str
"""`cron(…)`, an interval, or a text such as "every weekday at 18:00 in Europe/Berlin"."""


class Scheduling:
    """All of it needs the master, and raises `MasterUnavailable` without; what names a schedule that is not there
    raises `ScheduleNotFound`.

    A pause, an edit and a cancel stop all ticks to come at once. Those that were planned ahead are withdrawn, from
    their agents as well; where that came too late the answer says so.
    """

    _master: MasterStore
    _schedules: ScheduleClient
    _wake: Callable[[], None]

    @property
    def _scheduler(self) -> "Scheduler":
        raise NotImplementedError

    @overload
    async def recurring(
        self,
        handler: type[JobHandler[Data]],
        when: When,
        data: Data | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo: ...
    @overload
    async def recurring(
        self,
        handler: ContextFunction[Data],
        when: When,
        data: Data | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo: ...
    @overload
    async def recurring(
        self,
        handler: Reference,
        when: When,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo: ...
    async def recurring(
        self,
        handler: Any,
        when: When,
        data: Any = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        """Have a job made at every tick of `when`, from the first one after now. The `key` names the schedule: the same
        key again updates it in place, replaces all that was said before, keeps an interval's rhythm, and backfills
        nothing."""
        stored = await self._schedules.save(handler, when, data, key, options)
        self._wake()
        return schedule_info(stored)

    async def schedules(self) -> tuple[ScheduleInfo, ...]:
        """All schedules, by key."""
        return tuple(schedule_info(schedule) for schedule in await self._master.schedules())

    async def schedule(self, key: str) -> ScheduleInfo:
        """One schedule."""
        return schedule_info(await self._schedules.get(key))

    async def update_schedule(
        self, key: str, when: When | None = None, data: Any = UNSET, **options: Unpack[ScheduleOptions]
    ) -> ScheduleChange:
        """Change what is given, and leave the rest. Raises `KeyInvalid` for one that belongs to a profile."""
        return self._woken(await self._schedules.edit(key, when, data, options))

    async def pause_schedule(self, key: str) -> ScheduleChange:
        """No tick until it is resumed."""
        return self._woken(await self._schedules.turn(key, ScheduleState.PAUSED))

    async def resume_schedule(self, key: str) -> ScheduleChange:
        """Go on with the first tick after now: what fell into the pause is not made up for."""
        return self._woken(await self._schedules.turn(key, ScheduleState.ACTIVE))

    async def cancel_schedule(self, key: str) -> ScheduleChange:
        """End it; ticks that wait are withdrawn, a run under way goes on. `recurring` with its key begins it anew.
        Raises `KeyInvalid` for one that belongs to a profile."""
        return self._woken(await self._schedules.turn(key, ScheduleState.ENDED))

    async def run_schedule(self, key: str) -> JobHandle:
        """Enqueue its job now, whatever its state and its overlap rule; no tick is used for it."""
        job_id, agent = await self._schedules.run(key)
        return JobHandle(job_id, self._scheduler, agent)

    async def next_ticks(self, key: str, count: int = 10) -> tuple[TickPreview, ...]:
        """The next ticks, as they would come were it not paused."""
        return await self._schedules.preview(key, count)

    async def backfill(self, key: str, since: datetime, until: datetime) -> Backfilled:
        """Make the jobs of past ticks, from one instant to before the other, that have none: missed, skipped, or from
        before the schedule was made. They are due at once, and overlap as they may."""
        filled = await self._schedules.backfill(key, since, until)
        self._wake()
        return filled

    async def occurrences(
        self, key: str, *, before: datetime | None = None, limit: int = 50
    ) -> tuple[OccurrenceInfo, ...]:
        """Its ticks before that instant, latest first, with what came of them as far as the master knows."""
        return await self._schedules.occurrences(key, before, limit)

    async def schedule_diff(self, declared: Mapping[str, Sequence[Schedule]]) -> ScheduleDiff:
        """What a start of a program that declares these (`Cluster.declared`) would change. Changes nothing."""
        synced = await self._master.sync_profiles(declared, 0, dry=True)
        return ScheduleDiff(synced.added, synced.changed, synced.revived, synced.retiring, synced.conflicts)

    def _woken(self, change: ScheduleChange) -> ScheduleChange:
        self._wake()
        return change
