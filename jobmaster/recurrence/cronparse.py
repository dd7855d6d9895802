"""Cron expressions: five fields, or six with seconds first. croniter expands their lists, ranges, steps and names."""

from typing import Any

from jobmaster.model.errors import ExpressionInvalid
from jobmaster.recurrence.cronfields import MONTHS, WORD, Written, written_out
from jobmaster.recurrence.days import LAST, DayRule
from jobmaster.recurrence.times import Times
from jobmaster.recurrence.wallclock import Rule


def normal_cron(expression: str) -> str:
    """The expression with single blanks, upper-case names, and an alias in lower case."""
    words = WORD.findall(expression)
    return words[0].lower() if expression.lstrip().startswith("@") and words else " ".join(words).upper()


def parse_cron(expression: str) -> Rule:
    """Understand a cron expression. Raises `ExpressionInvalid`, also where no day could ever match."""
    plain = written_out(expression)
    # Imported here: programs that only enqueue don't need it.
    from croniter import croniter

    try:
        # Its stubs know neither the numbers nor the last weekdays in what it gives.
        parsed: Any = croniter(plain.text, 0, second_at_beginning=True)
    except (ValueError, TypeError, KeyError) as error:
        # All that could be foreseen was refused already, with its place.
        raise ExpressionInvalid(expression, expression, f"is refused: {error}", "a cron expression") from None
    minutes, hours, days, months, weekdays, seconds = parsed.expanded
    nth = frozenset(
        (int(weekday), LAST if which == "l" else int(which))
        for weekday, some in parsed.nth_weekday_of_month.items()
        for which in some
    )
    # What restricts the days is told by how it is written: croniter makes `*` of a full list, though not always.
    any_day, any_weekday = (plain.text.split()[field] == "*" for field in (3, 5))
    nearest = frozenset(parsed.nearest_weekday)
    rule = DayRule(
        months=frozenset(_all(months, 1, 12)),
        any_day=any_day,
        days=frozenset(() if any_day or nearest else _all(days, 1, 31)),
        last_day="l" in days and "alone" not in plain.own,
        last_workday="LW" in plain.own,
        nearest=nearest,
        any_weekday=any_weekday,
        weekdays=frozenset(() if any_weekday or nth else _all(weekdays, 0, 6)),
        nth=nth,
    )
    times = Times(_all(hours, 0, 23), _all(minutes, 0, 59), _all(seconds, 0, 59))
    if not rule.ever():
        raise _never(expression, rule, plain)
    return Rule(rule, times, len(times.minutes) * len(times.seconds) > 1 or len(times.hours) == 24)


def _all(values: list[int | str], low: int, high: int) -> list[int]:
    """The numbers of a field as croniter gives them: `*` for all, and beside them an `l` for the last day."""
    return [*range(low, high + 1)] if values == ["*"] else [value for value in values if isinstance(value, int)]


def _never(expression: str, rule: DayRule, plain: Written) -> ExpressionInvalid:
    days = plain.fields[-3]
    named = ", ".join(MONTHS[month - 1] for month in sorted(rule.months))
    return ExpressionInvalid(
        expression,
        ",".join(item.text for item in days),
        f"is no day of {named}: it would never happen",
        f"a day that {named} has, or L for its last",
        days[0].start,
    )
