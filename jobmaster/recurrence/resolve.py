"""From local times to instants: the gap and fold rules, walked stretch by stretch.

Inside a stretch of one offset local time runs like real time, so that matching is a search in naive local time. At its
edges the policy decides: local times left out may occur as one, at the edge; local times repeated occur in the first
pass, the second, or both.
"""

from jobmaster.recurrence.policy import Fold, Gap, Mark
from jobmaster.recurrence.times import DAY
from jobmaster.recurrence.wallclock import EARLIEST, LATEST, WallClock
from jobmaster.recurrence.zones import Stretch, Zone

FIRST_INSTANT = EARLIEST + 3 * 366 * DAY
LAST_INSTANT = LATEST - 3 * 366 * DAY
"""Ticks lie between these: a zone looks at the years around an instant, and dates end with the year 9999."""


class Resolver:
    """The occurrences of a wall-clock rule in a zone, in seconds since 1970."""

    __slots__ = ("_first", "_last", "_shift", "_wall", "_zone")

    def __init__(self, wall: WallClock, zone: Zone, gap: Gap, fold: Fold) -> None:
        self._wall = wall
        self._zone = zone
        self._shift = gap is Gap.SHIFT
        self._first = fold is not Fold.LAST
        self._last = fold is not Fold.FIRST

    def at_or_after(self, instant: int) -> int | None:
        """The first occurrence that is not before that instant; None where there is none before `LAST_INSTANT`."""
        at_or_after = self._wall.at_or_after
        instant = max(instant, FIRST_INSTANT)
        while instant < LAST_INSTANT:
            stretch = self._zone.stretch(instant)
            if self._shift and instant == stretch.start and self._moved(stretch):
                return instant
            match = at_or_after(instant + stretch.offset)
            if match is None:
                return None
            found = match - stretch.offset
            if found >= stretch.end:
                instant = stretch.end
            elif not self._last and match < stretch.second_pass_until and stretch.before > stretch.offset:
                instant = min(stretch.second_pass_until - stretch.offset, stretch.end)
            elif not self._first and match >= stretch.first_pass_from and stretch.after < stretch.offset:
                instant = stretch.end
            else:
                return found
        return None

    def at_or_before(self, instant: int) -> int | None:
        """The last occurrence that is not after that instant; None where there is none."""
        at_or_before = self._wall.at_or_before
        instant = min(instant, LAST_INSTANT - 1)
        while instant >= FIRST_INSTANT:
            stretch = self._zone.stretch(instant)
            match = at_or_before(instant + stretch.offset)
            if match is not None and (found := match - stretch.offset) >= stretch.start:
                if not self._first and match >= stretch.first_pass_from and stretch.after < stretch.offset:
                    instant = max(stretch.first_pass_from - stretch.offset, stretch.start) - 1
                    if instant >= stretch.start:
                        continue
                elif self._last or match >= stretch.second_pass_until or stretch.before <= stretch.offset:
                    return found
            if self._shift and self._moved(stretch):
                return stretch.start
            instant = stretch.start - 1
        return None

    def mark(self, instant: int) -> Mark | None:
        """What a change of offset did to an occurrence at that instant."""
        stretch = self._zone.stretch(instant)
        local = instant + stretch.offset
        if instant == stretch.start and stretch.missing and self._moved(stretch):
            return None if self._wall.at_or_after(local) == local else Mark.GAP
        return pass_of(stretch, local)

    def _moved(self, stretch: Stretch) -> bool:
        """Whether local times that the start of a stretch left out are to occur there."""
        missing = stretch.missing
        if missing is None:
            return False
        match = self._wall.at_or_after(missing[0])
        return match is not None and match < missing[1]


def pass_of(stretch: Stretch, local: int) -> Mark | None:
    """Which pass of a repeated local time it is; None for one that comes once."""
    if stretch.before > stretch.offset and local < stretch.second_pass_until:
        return Mark.FOLD_2
    if stretch.after < stretch.offset and local >= stretch.first_pass_from:
        return Mark.FOLD_1
    return None
