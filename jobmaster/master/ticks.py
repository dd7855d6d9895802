"""Which ticks of a schedule are due, missed or soon to come, and what its terms make of them. Pure."""

from hashlib import blake2b

from msgspec import Struct

from jobmaster.contracts.scheduling import Schedule
from jobmaster.model.errors import ExpressionInvalid
from jobmaster.model.terms import MISFIRE_US, Misfire, Overlap
from jobmaster.recurrence import Recurrence

TICKS_AHEAD = 20
"""Ticks to come of one schedule that are planned at a time, and the next ones when half of them are left: what is
planned has to be taken back if the schedule is edited."""
RECORDED = 100
"""Missed ticks of one schedule that get a record each; of a longer downtime those before are not even counted."""
RETRY_US = 500_000
"""When a schedule is looked at again whose next tick has to wait for a job to end."""


class Tick(Struct, frozen=True):
    at_us: int
    skipped: str | None = None
    """Why it is passed over; None: it becomes a job."""


class Decision(Struct, frozen=True):
    """What is to be done about one schedule now."""

    ticks: tuple[Tick, ...] = ()
    next_us: int | None = None
    """The watermark; None: there are no more ticks, the schedule ends."""
    look_us: int = 0
    blocked: bool = False
    """Undecided: find out first whether the job before has ended."""


def rule_of(schedule: Schedule) -> Recurrence:
    """Raises `ExpressionInvalid` for what can't be read."""
    return Recurrence.from_json(schedule.recurrence).anchored(schedule.anchor_us)


def first_tick(schedule: Schedule, after_us: int) -> int | None:
    """The first tick after that instant and not before its start; None if it has none before its end."""
    start_us, end_us = schedule.terms.start_us, schedule.terms.end_us
    if start_us is not None and start_us > after_us:
        after_us = start_us - 1
    tick_us = rule_of(schedule).next_after(after_us)
    return None if tick_us is None or (end_us is not None and tick_us >= end_us) else tick_us


def look_at(schedule: Schedule, next_us: int, ahead_us: int) -> int:
    """When a planner has to look at it again whose next tick is that one."""
    return next_us - ahead_us // 2 if schedule.terms.overlap is Overlap.ALLOW else next_us


def jitter_us(schedule: Schedule, tick_us: int) -> int:
    """How much after its tick the job is due: random, and always the same."""
    spread = schedule.terms.jitter_us
    if not spread:
        return 0
    drawn = blake2b(f"{tick_us}:{schedule.key}".encode(), digest_size=8, person=b"jitter").digest()
    return int.from_bytes(drawn, "big") % (spread + 1)


def decide(schedule: Schedule, now_us: int, ahead_us: int, ended: bool | None) -> Decision:
    """`ended`: whether the job of the schedule's latest tick has ended; None: not as far as is known yet."""
    if schedule.terms.overlap is not Overlap.ALLOW:
        ahead_us = 0
    run, skipped, next_us, look_us = _survey(schedule, now_us, ahead_us)
    if schedule.terms.overlap is Overlap.ALLOW or not run or ended:
        if schedule.terms.overlap is not Overlap.ALLOW and run:
            return _one_of(schedule.terms.overlap, run, skipped, next_us, now_us)
        return Decision(_ticks(skipped, run), next_us, look_us)
    if ended is None:
        return Decision(blocked=True)
    if schedule.terms.overlap is Overlap.SKIP:
        overlapped = tuple(Tick(tick_us, "overlap") for tick_us in run)
        return Decision((*_ticks(skipped, ()), *overlapped), next_us, look_us)
    return Decision(next_us=schedule.next_us, look_us=now_us + RETRY_US)


def _one_of(overlap: Overlap, run: list[int], skipped: list[int], next_us: int | None, now_us: int) -> Decision:
    """One tick at a time where the one before had to end: the others are looked at once this one has its job."""
    if overlap is Overlap.CANCEL_PREVIOUS:
        # Each but the last would be cancelled by the one after it before it began.
        passed = tuple(Tick(tick_us, "overlap") for tick_us in run[:-1])
        return Decision((*_ticks(skipped, ()), *passed, Tick(run[-1])), next_us, next_us or 0)
    if len(run) > 1:
        return Decision(_ticks(skipped, run[:1]), run[1], now_us + RETRY_US)
    return Decision(_ticks(skipped, run), next_us, next_us or 0)


def _ticks(skipped: list[int], run: list[int] | tuple[()]) -> tuple[Tick, ...]:
    return (*(Tick(tick_us, "misfire") for tick_us in skipped), *(Tick(tick_us) for tick_us in run))


def _survey(schedule: Schedule, now_us: int, ahead_us: int) -> tuple[list[int], list[int], int | None, int]:
    """Ticks to run and ticks missed, both oldest first, the tick after them, and when to look again."""
    rule, terms = rule_of(schedule), schedule.terms
    end_us = terms.end_us
    late_us = now_us - MISFIRE_US
    missed: list[int] = []
    tick_us: int | None = schedule.next_us
    if schedule.next_us < late_us:
        most = max(RECORDED, terms.most if terms.misfire is Misfire.ALL else 0)
        missed = rule.latest(schedule.next_us - 1, late_us - 1, most)
        tick_us = rule.next_from(late_us)
    timely: list[int] = []
    coming = 0
    while tick_us is not None and tick_us <= now_us + ahead_us and coming < TICKS_AHEAD:
        timely.append(tick_us)
        coming += tick_us > now_us
        tick_us = rule.next_after(tick_us)
    if end_us is not None:
        missed = [found for found in missed if found < end_us]
        timely = [found for found in timely if found < end_us]
        tick_us = None if tick_us is None or tick_us >= end_us else tick_us
    kept = _kept(terms.misfire, terms.most, missed, due=bool(timely) and timely[0] <= now_us)
    look_us = 0 if tick_us is None else look_at(schedule, tick_us, ahead_us)
    if coming >= TICKS_AHEAD:
        look_us = timely[-(TICKS_AHEAD // 2)]
    return missed[len(missed) - kept :] + timely, missed[: len(missed) - kept], tick_us, look_us


def _kept(misfire: Misfire, most: int, missed: list[int], *, due: bool) -> int:
    """How many of the missed ticks run."""
    match misfire:
        case Misfire.SKIP:
            return 0
        case Misfire.LATEST:
            return 0 if due else min(1, len(missed))
        case Misfire.ALL:
            return min(most, len(missed))


def interval_of(schedule: Schedule) -> int | None:
    """The step of a plain interval, in microseconds; None for any other rule."""
    try:
        return Recurrence.from_json(schedule.recurrence).interval_us
    except ExpressionInvalid:
        return None
