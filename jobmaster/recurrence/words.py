"""An expression in plain words: what `jobmaster schedules explain` says."""

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

from jobmaster.recurrence import lexicon
from jobmaster.recurrence.days import ALL_MONTHS, LAST, DayRule
from jobmaster.recurrence.policy import Fold, Gap
from jobmaster.recurrence.times import ListedTimes, Times
from jobmaster.recurrence.value import Recurrence

MOST_LISTED = 8
"""More times of day than these are described by hours, minutes and seconds."""
MOST_RUNS = 3
UNITS = (("hour", 3600), ("minute", 60), ("second", 1))
EVERY_DAY = DayRule()
WEEKDAYS = tuple(name.capitalize() for name in lexicon.WEEKDAYS)
MONTHS = tuple(name.capitalize() for name in lexicon.MONTHS)
GAPS = {
    Gap.SHIFT: "a local time that the clocks leave out: at the first instant after it",
    Gap.SKIP: "a local time that the clocks leave out: not",
}
FOLDS = {
    Fold.FIRST: "one that comes twice: the first time",
    Fold.LAST: "one that comes twice: the second time",
    Fold.BOTH: "one that comes twice: both times",
}


def describe(recurrence: Recurrence) -> str:
    """When it occurs, in words. Raises `ExpressionInvalid`."""
    rule = recurrence.rule
    if rule is None:
        return f"{recurrence.expression}, in real time"
    parts = [time_words(rule.times)]
    if rule.days != EVERY_DAY or not _all_day(rule.times):
        parts.append(day_words(rule.days))
    return f"{', '.join(parts)}, in {recurrence.timezone}"


def describe_dst(recurrence: Recurrence) -> str:
    """What it does where the clocks change, in words."""
    if recurrence.rule is None:
        return "goes on in real time"
    gap, fold = recurrence.dst()
    return f"{GAPS[gap]}; {FOLDS[fold]}"


def time_words(times: Times | ListedTimes) -> str:
    """Times of day: `at 09:00 and 17:30`, `every 5 minutes, from 09:00 to 17:59`."""
    if isinstance(times, ListedTimes):
        return _listed_words(times.listed)
    hours, minutes, seconds = times.hours, times.minutes, times.seconds
    on_the_hour = minutes == seconds == (0,)
    if len(hours) < 24 and (on_the_hour or len(hours) * len(minutes) * len(seconds) <= MOST_LISTED):
        return _listed_words([h * 3600 + m * 60 + s for h in hours for m in minutes for s in seconds])
    if on_the_hour:
        return "every hour, on the hour"
    text, periodic = _within_the_hour(minutes, seconds)
    if len(hours) == 24:
        return text if periodic else f"{text} of every hour"
    runs = [f"from {low:02}:00 to {high:02}:59" for low, high in _runs(hours)]
    return f"{text}, {_joined(runs)}" if len(runs) <= MOST_RUNS else f"{text} of {_values('hour', hours)}"


def _within_the_hour(minutes: tuple[int, ...], seconds: tuple[int, ...]) -> tuple[str, bool]:
    """The words, and whether they say the same of every hour already."""
    minute_step, second_step = _even(minutes), _even(seconds)
    minute_text = f"at {_values('minute', minutes)}" if minute_step is None else _period(minute_step * 60)
    if seconds == (0,):
        return minute_text, minute_step is not None
    text = f"at {_values('second', seconds)}" if second_step is None else _period(second_step)
    if minute_step == 1:
        return text if second_step else f"{text} of every minute", True
    if minute_step is not None:
        return f"{text} of every {minute_step}{lexicon.suffix(minute_step)} minute", True
    return f"{text} of {_values('minute', minutes)}", False


def _listed_words(listed: Sequence[int]) -> str:
    steps = {late - early for early, late in pairwise(listed)}
    if len(listed) > MOST_LISTED and len(steps) == 1:
        return f"{_period(steps.pop())} from {lexicon.clock(listed[0])} to {lexicon.clock(listed[-1])}"
    return f"at {_joined([lexicon.clock(time) for time in listed])}"


def _period(step: int) -> str:
    unit, size = next((unit, size) for unit, size in UNITS if step % size == 0)
    return f"every {unit}" if step == size else f"every {step // size} {unit}s"


def _values(unit: str, values: tuple[int, ...]) -> str:
    """minute 15, minutes 3 to 59 in steps of 7, minutes 5 and 10."""
    steps = {late - early for early, late in pairwise(values)}
    if len(values) > MOST_RUNS and len(steps) == 1 and (step := steps.pop()) > 1:
        return f"{unit}s {values[0]} to {values[-1]} in steps of {step}"
    return f"{unit}{'' if len(values) == 1 else 's'} {_numbers(values)}"


def _even(values: tuple[int, ...]) -> int | None:
    """The step, where the values are all of 0, step, 2·step … below 60, and more than one."""
    step = 60 // len(values)
    return step if step < 60 and values == tuple(range(0, 60, step)) else None


def _all_day(times: Times | ListedTimes) -> bool:
    return isinstance(times, Times) and len(times.hours) == 24


def day_words(rule: DayRule) -> str:
    """Days: `Monday to Friday`, `on the 1st and the last day of the month, in March`."""
    by_day = [] if rule.any_day else [_by_day(rule)]
    by_weekday = [] if rule.any_weekday else [_by_weekday(rule)]
    words = " or ".join(by_day + by_weekday) or "every day"
    if rule.months == ALL_MONTHS:
        return words
    return f"{words}, in {_numbers(sorted(rule.months), lambda month: MONTHS[month - 1])}"


def _by_day(rule: DayRule) -> str:
    parts = []
    if rule.days:
        parts.append(f"the {_numbers(sorted(rule.days), lambda day: f'{day}{lexicon.suffix(day)}')}")
    parts += [
        f"the weekday (Monday to Friday) nearest to the {day}{lexicon.suffix(day)}" for day in sorted(rule.nearest)
    ]
    parts += ["the last day"] if rule.last_day else []
    parts += ["the last weekday (Monday to Friday)"] if rule.last_workday else []
    return f"on {_joined(parts)} of the month"


def _by_weekday(rule: DayRule) -> str:
    if rule.nth:
        # By place, then from Monday; the last at the end.
        ordered = sorted(rule.nth, key=lambda pair: (pair[1] or 6, (pair[0] - 1) % 7))
        parts = [f"the {'last' if n == LAST else lexicon.ORDINALS[n - 1]} {WEEKDAYS[day]}" for day, n in ordered]
        return f"on {_joined(parts)} of the month"
    # From Monday on, so that Saturday and Sunday are neighbours.
    from_monday = sorted((day - 1) % 7 for day in rule.weekdays)
    names = _numbers(from_monday, lambda day: WEEKDAYS[(day + 1) % 7])
    return names if " to " in names else f"on {names}"


def _runs(values: Collection[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and runs[-1][1] == value - 1:
            runs[-1] = runs[-1][0], value
        else:
            runs.append((value, value))
    return runs


def _numbers(values: Collection[int], name: Callable[[int], str] = str) -> str:
    parts = []
    for low, high in _runs(values):
        if high - low > 1:
            parts.append(f"{name(low)} to {name(high)}")
        else:
            parts += [name(value) for value in range(low, high + 1)]
    return _joined(parts)


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
