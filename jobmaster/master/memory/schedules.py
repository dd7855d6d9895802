"""Schedules: what they are and what is changed about them, in memory."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from jobmaster.contracts.decisions import cancelled
from jobmaster.contracts.scheduling import (
    OccurrenceEntry,
    Saved,
    Schedule,
    ScheduleState,
    Synced,
    Taken,
    TickState,
)
from jobmaster.master.memory.tables import MemoryPart, Tables
from jobmaster.master.schedule_rules import (
    WITHDRAWN_AT_ONCE,
    ended,
    is_foreign,
    reconciled,
    saved,
    takes_back,
    turned,
    withdraws,
)
from jobmaster.model.states import JobState


class MemorySchedules(MemoryPart):
    async def save_schedule(self, schedule: Schedule) -> Saved:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            stored = rows.schedules.get(schedule.key)
            if stored is not None and is_foreign(stored, schedule):
                return Saved(stored, changed=False)
            return _write(rows, stored, saved(stored, schedule, now_us), now_us)

    async def turn_schedule(self, key: str, state: ScheduleState) -> Saved | None:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            stored = rows.schedules.get(key)
            return None if stored is None else _write(rows, stored, turned(stored, state, now_us), now_us)

    async def schedules(self) -> list[Schedule]:
        with self._rows() as rows:
            return sorted(rows.schedules.values(), key=lambda schedule: schedule.key.encode())

    async def schedule(self, key: str) -> Schedule | None:
        with self._rows() as rows:
            return rows.schedules.get(key)

    async def occurrences(self, key: str, before_us: int | None, limit: int) -> list[OccurrenceEntry]:
        with self._rows() as rows:
            found = [
                occurrence
                for (schedule, tick_us), occurrence in rows.occurrences.items()
                if schedule == key and (before_us is None or tick_us < before_us)
            ]
            found.sort(key=lambda occurrence: occurrence.tick_us, reverse=True)
            return [OccurrenceEntry(entry, rows.known(entry.job_id)) for entry in found[: max(limit, 0)]]

    async def tick_ran(self, ticks: Sequence[tuple[str, int]]) -> int:
        with self._rows() as rows:
            found = [rows.occurrences[key] for key in ticks if key in rows.occurrences]
            withdrawn = [entry for entry in found if entry.state is TickState.WITHDRAWN]
            for entry in withdrawn:
                rows.occurrences[entry.schedule, entry.tick_us] = replace(entry, state=TickState.PLANNED)
            return len(withdrawn)

    async def sync_profiles(
        self, declared: Mapping[str, Sequence[Schedule]], grace_us: int, *, dry: bool = False
    ) -> Synced:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            keys = {schedule.key for schedules in declared.values() for schedule in schedules}
            stored = {
                key: schedule
                for key, schedule in rows.schedules.items()
                if key in keys or (schedule.profile is not None and schedule.profile in declared)
            }
            outcome = reconciled(stored, declared, grace_us, now_us)
            if dry or outcome.synced.conflicts:
                return outcome.synced
            rows.profiles.update(dict.fromkeys(declared, now_us))
            taken = [item for before, after in outcome.writes for item in _write(rows, before, after, now_us).taken]
            return replace(outcome.synced, taken=tuple(taken))

    async def retire(self, alive: Sequence[str], grace_us: int) -> list[Taken]:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            rows.profiles.update(dict.fromkeys(alive, now_us))
            unseen = {name for name, seen_us in rows.profiles.items() if seen_us <= now_us - grace_us}
            gone = [
                schedule
                for schedule in rows.schedules.values()
                if schedule.state is not ScheduleState.ENDED
                and (schedule.profile in unseen or (schedule.retire_us is not None and schedule.retire_us <= now_us))
            ]
            return [item for stored in gone for item in _write(rows, stored, ended(stored), now_us).taken]


def _write(rows: Tables, stored: Schedule | None, after: Schedule, now_us: int) -> Saved:
    if after is stored:
        return Saved(after, changed=False)
    rows.schedules[after.key] = after
    return Saved(after, _withdraw(rows, after, now_us) if withdraws(stored, after) else ())


def _withdraw(rows: Tables, schedule: Schedule, now_us: int) -> tuple[Taken, ...]:
    """Take back what can be taken back of its ticks to come; once it has ended also of those that wait."""
    ticks = sorted((tick_us for key, tick_us in rows.occurrences if key == schedule.key), reverse=True)
    coming = [tick_us for tick_us in ticks if tick_us > now_us]
    if schedule.state is ScheduleState.ENDED:
        coming += ticks[len(coming) :][:WITHDRAWN_AT_ONCE]
    taken = []
    for tick_us in coming:
        occurrence = rows.occurrences[schedule.key, tick_us]
        job = rows.known(occurrence.job_id)
        item = takes_back(occurrence, job)
        if item is None or job is None:
            continue
        taken.append(item)
        rows.occurrences[schedule.key, tick_us] = replace(occurrence, state=TickState.WITHDRAWN)
        if job.state is not JobState.QUEUED:
            rows.write(cancelled(job, now_us)[0])
    return tuple(taken)
