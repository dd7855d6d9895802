"""Days: which days of a month a day-of-month rule and a day-of-week rule name, and the next and previous of them."""

from calendar import isleap
from datetime import MAXYEAR, date

from msgspec import Struct

LAST = 0
"""In `DayRule.nth`: the last such weekday of the month."""

WHOLE_MONTH = (1 << 32) - 2
ALL_MONTHS = frozenset(range(1, 13))


class DayRule(Struct, frozen=True):
    """The days on which something happens. Weekdays count from Sunday, 0, as cron's do."""

    months: frozenset[int] = ALL_MONTHS
    any_day: bool = True
    """The day of the month is not restricted."""
    days: frozenset[int] = frozenset()
    last_day: bool = False
    last_workday: bool = False
    nearest: frozenset[int] = frozenset()
    """The weekday, Monday to Friday, nearest to each of these days, in the same month."""
    any_weekday: bool = True
    """The day of the week is not restricted."""
    weekdays: frozenset[int] = frozenset()
    nth: frozenset[tuple[int, int]] = frozenset()
    """(weekday, which one of the month): 1 to 5, or `LAST`."""

    def mask(self, month: int, first_weekday: int, leap: bool) -> int:
        """The days of a month as bits 1 to 31. `first_weekday` is that of the 1st, from Monday, 0."""
        if month not in self.months:
            return 0
        length = length_of(month, leap)
        month_mask = WHOLE_MONTH & ((1 << (length + 1)) - 1)
        if self.any_day and self.any_weekday:
            return month_mask
        chosen = 0
        if not self.any_day:
            chosen |= self._by_day(first_weekday, length)
        if not self.any_weekday:
            chosen |= self._by_weekday(first_weekday, length)
        return chosen & month_mask

    def _by_day(self, first_weekday: int, length: int) -> int:
        chosen = 0
        for day in self.days:
            chosen |= 1 << day
        if self.last_day:
            chosen |= 1 << length
        for day in self.nearest | ({length} if self.last_workday else frozenset[int]()):
            chosen |= 1 << _workday(min(day, length), first_weekday, length)
        return chosen

    def _by_weekday(self, first_weekday: int, length: int) -> int:
        chosen = 0
        for day in range(1, length + 1):
            # From Monday, 0, to Sunday, 0.
            weekday = (first_weekday + day) % 7
            which = (day - 1) // 7 + 1
            if (
                weekday in self.weekdays
                or (weekday, which) in self.nth
                or (day + 7 > length and (weekday, LAST) in self.nth)
            ):
                chosen |= 1 << day
        return chosen

    def ever(self) -> bool:
        """Whether any day of any year is one. The 14 kinds of year all come up."""
        return any(
            self.mask(month, first, leap) for month in self.months for first in range(7) for leap in (False, True)
        )


class Days:
    """Walks the days of a rule that has some. Remembers at most 168 months: those that differ in length or start."""

    __slots__ = ("_masks", "every", "rule")

    def __init__(self, rule: DayRule) -> None:
        self.rule = rule
        self.every = rule.any_day and rule.any_weekday and rule.months == ALL_MONTHS
        self._masks: dict[tuple[int, int, bool], int] = {}

    def at_or_after(self, ordinal: int) -> int | None:
        """The ordinal of the first such day that is not before the given one; None after the year 9999."""
        if self.every:
            return ordinal
        day = date.fromordinal(ordinal)
        year, month, bits = day.year, day.month, -1 << day.day
        while True:
            mask = self._mask(year, month) & bits
            if mask:
                return date(year, month, (mask & -mask).bit_length() - 1).toordinal()
            bits = -1
            month += 1
            if month > 12:
                year, month = year + 1, 1
                if year > MAXYEAR:
                    return None

    def at_or_before(self, ordinal: int) -> int | None:
        """The ordinal of the last such day that is not after the given one; None before the year 1."""
        if self.every:
            return ordinal
        day = date.fromordinal(ordinal)
        year, month, bits = day.year, day.month, (2 << day.day) - 1
        while True:
            mask = self._mask(year, month) & bits
            if mask:
                return date(year, month, mask.bit_length() - 1).toordinal()
            bits = WHOLE_MONTH
            month -= 1
            if month < 1:
                year, month = year - 1, 12
                if year < 1:
                    return None

    def _mask(self, year: int, month: int) -> int:
        if month not in self.rule.months:
            return 0
        kind = month, date(year, month, 1).weekday(), isleap(year)
        mask = self._masks.get(kind)
        if mask is None:
            mask = self._masks[kind] = self.rule.mask(*kind)
        return mask


def length_of(month: int, leap: bool) -> int:
    """The number of days of a month."""
    return (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


def _workday(day: int, first_weekday: int, length: int) -> int:
    """The Monday-to-Friday day nearest to a day of a month, in that month."""
    weekday = (first_weekday + day - 1) % 7
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day
