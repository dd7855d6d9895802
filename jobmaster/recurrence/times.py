"""Times of day: hours, minutes and seconds, each with each."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from functools import lru_cache

DAY = 86_400
NONE = -1
TABLES_KEPT = 1_024


class Times:
    """The seconds of a day that a set of hours, one of minutes and one of seconds name together.

    Never listed, as there may be 86,400 of them: tables say which value of a field comes next.
    """

    __slots__ = (
        "_hour_down", "_hour_up", "_minute_down", "_minute_up", "_second_down", "_second_up", "first", "hours", "last",
        "minutes", "seconds",
    )  # fmt: skip

    def __init__(self, hours: Collection[int], minutes: Collection[int], seconds: Collection[int]) -> None:
        self.hours = tuple(sorted(hours))
        self.minutes = tuple(sorted(minutes))
        self.seconds = tuple(sorted(seconds))
        self.first = self.hours[0] * 3600 + self.minutes[0] * 60 + self.seconds[0]
        self.last = self.hours[-1] * 3600 + self.minutes[-1] * 60 + self.seconds[-1]
        self._hour_up, self._hour_down = _tables(self.hours, 24)
        self._minute_up, self._minute_down = _tables(self.minutes, 60)
        self._second_up, self._second_down = _tables(self.seconds, 60)

    def at_or_after(self, second_of_day: int) -> int:
        """The earliest one that is not before that second of the day, or `NONE`."""
        minute_of_day, second = divmod(second_of_day, 60)
        hour, minute = divmod(minute_of_day, 60)
        if self._hour_up[hour] == hour:
            if self._minute_up[minute] == minute and (found := self._second_up[second]) >= 0:
                return second_of_day - second + found
            if (found := self._minute_up[minute + 1]) >= 0:
                return hour * 3600 + found * 60 + self.seconds[0]
        found = self._hour_up[hour + 1]
        return found if found < 0 else found * 3600 + self.minutes[0] * 60 + self.seconds[0]

    def at_or_before(self, second_of_day: int) -> int:
        """The latest one that is not after that second of the day, or `NONE`."""
        minute_of_day, second = divmod(second_of_day, 60)
        hour, minute = divmod(minute_of_day, 60)
        # Index -1 of a table is the slot for "nothing before", which holds NONE.
        if self._hour_down[hour] == hour:
            if self._minute_down[minute] == minute and (found := self._second_down[second]) >= 0:
                return second_of_day - second + found
            if (found := self._minute_down[minute - 1]) >= 0:
                return hour * 3600 + found * 60 + self.seconds[-1]
        found = self._hour_down[hour - 1]
        return found if found < 0 else found * 3600 + self.minutes[-1] * 60 + self.seconds[-1]


class ListedTimes:
    """Times of day that are no such product: 09:00 and 17:30."""

    __slots__ = ("first", "last", "listed")

    def __init__(self, listed: Iterable[int]) -> None:
        self.listed = tuple(sorted(set(listed)))
        self.first, self.last = self.listed[0], self.listed[-1]

    def at_or_after(self, second_of_day: int) -> int:
        """Like `Times.at_or_after`."""
        index = bisect_left(self.listed, second_of_day)
        return self.listed[index] if index < len(self.listed) else NONE

    def at_or_before(self, second_of_day: int) -> int:
        """Like `Times.at_or_before`."""
        index = bisect_right(self.listed, second_of_day)
        return self.listed[index - 1] if index > 0 else NONE


@lru_cache(maxsize=TABLES_KEPT)
def _tables(values: tuple[int, ...], size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each number below `size`: the value at or above it, and the one at or below it; one slot more for none."""
    up, down = [NONE] * (size + 1), [NONE] * (size + 1)
    members = set(values)
    for number in range(size - 1, -1, -1):
        up[number] = number if number in members else up[number + 1]
    for number in range(size):
        down[number] = number if number in members else down[number - 1]
    return tuple(up), tuple(down)
