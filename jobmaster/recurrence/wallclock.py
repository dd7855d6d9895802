"""Local times: the next and the previous match of days and times of day, in naive seconds since 1970."""

from typing import NamedTuple

from jobmaster.recurrence.days import DayRule, Days
from jobmaster.recurrence.times import DAY, ListedTimes, Times

EPOCH_ORDINAL = 719_163
LATEST = (3_652_059 - EPOCH_ORDINAL) * DAY
"""The last day that a date can have begins here; nothing is looked for from there on."""
EARLIEST = (3 - EPOCH_ORDINAL) * DAY


class Rule(NamedTuple):
    """An expression, understood: the days, the times of day, and what kind of rhythm that is."""

    days: DayRule
    times: Times | ListedTimes
    real_time: bool
    """It recurs within the hour or names every hour, so that a change of offset must not disturb it."""


class WallClock:
    """What a clock on the wall shows at an occurrence. Knows no zone."""

    __slots__ = ("days", "times")

    def __init__(self, rule: Rule) -> None:
        self.days = Days(rule.days)
        self.times = rule.times

    def at_or_after(self, local: int) -> int | None:
        """The first match that is not before that local second."""
        if not EARLIEST <= local < LATEST:
            return None
        number, second = divmod(local, DAY)
        ordinal = number + EPOCH_ORDINAL
        day = self.days.at_or_after(ordinal)
        if day == ordinal:
            found = self.times.at_or_after(second)
            if found >= 0:
                return number * DAY + found
            day = self.days.at_or_after(ordinal + 1)
        return None if day is None else (day - EPOCH_ORDINAL) * DAY + self.times.first

    def at_or_before(self, local: int) -> int | None:
        """The last match that is not after that local second."""
        if not EARLIEST <= local < LATEST:
            return None
        number, second = divmod(local, DAY)
        ordinal = number + EPOCH_ORDINAL
        day = self.days.at_or_before(ordinal)
        if day == ordinal:
            found = self.times.at_or_before(second)
            if found >= 0:
                return number * DAY + found
            day = self.days.at_or_before(ordinal - 1)
        return None if day is None else (day - EPOCH_ORDINAL) * DAY + self.times.last
