"""Schedules and their occurrences, in memory."""

from collections.abc import Sequence

from msgspec.structs import replace

from jobmaster.contracts.entries import Occurrence, Schedule, ScheduleState
from jobmaster.master.memory.tables import MemoryPart, Tables
from jobmaster.master.rules import new_placement, saved


class MemorySchedules(MemoryPart):
    async def save_schedule(self, schedule: Schedule) -> Schedule:
        with self._rows() as rows:
            stored = saved(rows.schedules.get(schedule.key), schedule)
            rows.schedules[schedule.key] = stored
            return stored

    async def schedules(self) -> list[Schedule]:
        with self._rows() as rows:
            return sorted(rows.schedules.values(), key=lambda schedule: schedule.key.encode())

    async def due_schedules(self, before_us: int, limit: int) -> list[Schedule]:
        with self._rows() as rows:
            active = (entry for entry in rows.schedules.values() if entry.state is ScheduleState.ACTIVE)
            due = (entry for entry in active if entry.next_us <= before_us)
            return sorted(due, key=lambda entry: (entry.next_us, entry.key.encode()))[: max(limit, 0)]

    async def end_schedule(self, key: str) -> bool:
        with self._rows() as rows:
            schedule = rows.schedules.get(key)
            if schedule is None or schedule.state is ScheduleState.ENDED:
                return False
            rows.schedules[key] = replace(schedule, state=ScheduleState.ENDED)
            return True

    async def plan(self, occurrences: Sequence[Occurrence]) -> list[bool]:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            checked = [replace(item, placement=new_placement(item.placement, now_us)) for item in occurrences]
            return [_plan(rows, item) for item in checked]

    async def ticks(self, key: str, limit: int) -> list[tuple[int, str]]:
        with self._rows() as rows:
            ticks = [(tick, job_id) for (schedule, tick), job_id in rows.occurrences.items() if schedule == key]
            return sorted(ticks, reverse=True)[: max(limit, 0)]


def _plan(rows: Tables, item: Occurrence) -> bool:
    schedule = rows.schedules.get(item.schedule)
    if schedule is None or schedule.state is not ScheduleState.ACTIVE or schedule.next_us != item.watermark_us:
        return False
    rows.schedules[item.schedule] = replace(schedule, next_us=item.next_us)
    job = item.placement.job
    if (item.schedule, item.tick_us) in rows.occurrences:
        return False
    rows.occurrences[item.schedule, item.tick_us] = job.id
    if rows.known(job.id) is not None:
        return False
    rows.write(job, item.placement)
    return True
