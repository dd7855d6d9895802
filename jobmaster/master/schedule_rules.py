"""What an edit, a pause, a resumption and the like make of a schedule. Pure; shared by every master store."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from jobmaster.contracts.scheduling import Occurrence, Schedule, ScheduleState, Synced, Taken, TickState
from jobmaster.master.ticks import first_tick, look_at
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.model.terms import MISFIRE_US

DEFINITION = ("handler", "recurrence", "terms", "profile", "lane", "priority", "agent", "data", "policy", "labels")
"""What a declaration says; the rest is the store's."""

ON_THE_WAY = frozenset({JobState.HELD, JobState.DISPATCHING, JobState.QUEUED})
"""States from which the job of a tick can be taken back."""


def same_definition(stored: Schedule, given: Schedule) -> bool:
    return all(getattr(stored, name) == getattr(given, name) for name in DEFINITION)


def saved(stored: Schedule | None, given: Schedule, now_us: int) -> Schedule:
    """The schedule as it is from now on; `stored` itself if nothing changes. A new one, and one that had ended, begin
    with the first tick after now; an edit keeps a tick that is due, and backfills nothing."""
    if stored is None:
        start_us = given.terms.start_us
        begun = replace(
            given, anchor_us=now_us if start_us is None else start_us, created_us=now_us, state=ScheduleState.ACTIVE
        )
        return at_tick(begun, first_tick(begun, now_us), now_us)
    same = same_definition(stored, given)
    if same and stored.state is not ScheduleState.ENDED and stored.retire_us is None:
        return stored
    start_us = given.terms.start_us
    changed = replace(
        given,
        anchor_us=stored.created_us if start_us is None else start_us,
        created_us=stored.created_us,
        state=ScheduleState.PAUSED if stored.state is ScheduleState.PAUSED else ScheduleState.ACTIVE,
        next_us=stored.next_us,
        look_us=stored.look_us,
        last_job=stored.last_job,
        retire_us=None,
        version=stored.version + 1,
    )
    next_us = first_tick(changed, now_us)
    if stored.state is ScheduleState.ACTIVE and stored.next_us <= now_us:
        same_ticks = (stored.recurrence, stored.anchor_us, stored.terms.start_us) == (
            changed.recurrence,
            changed.anchor_us,
            changed.terms.start_us,
        )
        if same_ticks or stored.next_us >= now_us - MISFIRE_US:
            next_us = stored.next_us
    begun = at_tick(changed, next_us, now_us)
    return stored if same and begun.state is stored.state is ScheduleState.ENDED else begun


def at_tick(schedule: Schedule, next_us: int | None, now_us: int) -> Schedule:
    """With that watermark; ended if there is none. Looked at soon: who changed it can't know how far ahead planners
    plan."""
    if next_us is None:
        return replace(schedule, state=ScheduleState.ENDED, next_us=now_us, look_us=now_us)
    return replace(schedule, next_us=next_us, look_us=look_at(schedule, next_us, LOOK_AHEAD_US))


LOOK_AHEAD_US = 120_000_000
"""A changed schedule is looked at once within half of this before its next tick, whatever a planner's `ahead_us`."""


def paused(stored: Schedule) -> Schedule:
    return replace(stored, state=ScheduleState.PAUSED, version=stored.version + 1)


def resumed(stored: Schedule, now_us: int) -> Schedule:
    """Goes on with the first tick after now: a pause never replays."""
    active = replace(stored, state=ScheduleState.ACTIVE, version=stored.version + 1)
    return at_tick(active, first_tick(active, now_us), now_us)


def ended(stored: Schedule) -> Schedule:
    return replace(stored, state=ScheduleState.ENDED, retire_us=None, version=stored.version + 1)


def turned(stored: Schedule, state: ScheduleState, now_us: int) -> Schedule:
    """The schedule brought into that state; itself where it is there already, or has ended."""
    if state is stored.state or stored.state is ScheduleState.ENDED:
        return stored
    match state:
        case ScheduleState.ACTIVE:
            return resumed(stored, now_us)
        case ScheduleState.PAUSED:
            return paused(stored)
        case ScheduleState.ENDED:
            return ended(stored)


def is_foreign(stored: Schedule | None, given: Schedule) -> bool:
    """Whether the key is another owner's: a profile's, or that of what was made at run time."""
    return stored is not None and stored.state is not ScheduleState.ENDED and stored.profile != given.profile


class Reconciled(Struct, frozen=True):
    """What the declarations of some profiles make of what is stored."""

    synced: Synced
    writes: tuple[tuple[Schedule | None, Schedule], ...] = ()
    """Schedules as they are stored and as they shall be; empty if there is a conflict."""


def reconciled(
    stored: Mapping[str, Schedule], declared: Mapping[str, Sequence[Schedule]], grace_us: int, now_us: int
) -> Reconciled:
    """`stored`: all schedules of those profiles, and all with a declared key. A key may move from one of the profiles
    to another; one that belongs to anybody else is a conflict, and then nothing is to be written."""
    owners = {schedule.key: profile for profile, schedules in declared.items() for schedule in schedules}
    added: list[str] = []
    changed: list[str] = []
    revived: list[str] = []
    retiring: list[str] = []
    conflicts: list[tuple[str, str]] = []
    writes: list[tuple[Schedule | None, Schedule]] = []
    for given in (schedule for _, schedules in sorted(declared.items()) for schedule in schedules):
        before = stored.get(given.key)
        if before is not None and is_foreign(before, given) and before.profile not in declared:
            conflicts.append((given.key, before.profile or ""))
            continue
        after = saved(before, given, now_us)
        if after is before:
            continue
        gone = before is not None and (before.state is ScheduleState.ENDED or before.retire_us is not None)
        (added if before is None else revived if gone else changed).append(given.key)
        writes.append((before, after))
    for key, before in stored.items():
        retires = before.profile in declared and key not in owners and before.state is not ScheduleState.ENDED
        if retires and before.retire_us is None:
            retiring.append(key)
            writes.append((before, replace(before, retire_us=now_us + grace_us, version=before.version + 1)))
    if conflicts:
        return Reconciled(Synced(conflicts=tuple(sorted(conflicts))))
    synced = Synced(
        added=tuple(sorted(added)),
        changed=tuple(sorted(changed)),
        revived=tuple(sorted(revived)),
        retiring=tuple(sorted(retiring)),
    )
    return Reconciled(synced, tuple(writes))


def withdraws(stored: Schedule | None, after: Schedule) -> bool:
    """Whether such a change takes back ticks that were planned: of one that is paused that was done when it was."""
    if stored is None or (after.retire_us is not None and after.state is not ScheduleState.ENDED):
        return False
    return stored.state is ScheduleState.ACTIVE or after.state is ScheduleState.ENDED


WITHDRAWN_AT_ONCE = 100
"""Of a schedule that ends, the latest ticks among which jobs still waiting are looked for."""


def takes_back(occurrence: Occurrence, job: Job | None) -> Taken | None:
    """Whether a planned tick can still be withdrawn, as far as the master knows."""
    if occurrence.state is not TickState.PLANNED or job is None or job.state not in ON_THE_WAY:
        return None
    return Taken(occurrence.schedule, occurrence.tick_us, job.id, job.epoch, job.agent)
