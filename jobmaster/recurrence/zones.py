"""Zones: the offsets of a zone over time, as stretches of one offset each.

`zoneinfo` answers for single instants only; the instants at which an offset changes are found by asking it day by day
and halving, once a year of a zone, and kept for some hundred years.
"""

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec import Struct

from jobmaster.model.errors import ExpressionInvalid
from jobmaster.recurrence.times import DAY

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MARGIN = 10 * DAY
YEARS_KEPT = 256
ZONES_KEPT = 1_024
FIRST_YEAR, LAST_YEAR = 3, 9_997
_NAME = re.compile(r"[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+)*")
_LONGEST_NAME = 64
_NOT_ZONES = re.compile("posix/|right/|posixrules|localtime")
"""What a system keeps beside the zones: the host's own zone among them, which no schedule may depend on."""


class Stretch(Struct, frozen=True):
    """The instants from `start` to before `end`, with one offset: local = instant + offset."""

    start: int
    end: int
    offset: int
    before: int
    """The offset up to `start`; the same one where the stretch was only cut."""
    after: int
    """The offset from `end` on; the same one where the stretch was only cut."""

    @property
    def missing(self) -> tuple[int, int] | None:
        """The local times, from and to before, that the change at `start` left out."""
        return (self.start + self.before, self.start + self.offset) if self.before < self.offset else None

    @property
    def second_pass_until(self) -> int:
        """Local times before this one were seen in the stretch before as well."""
        return self.start + max(self.before, self.offset)

    @property
    def first_pass_from(self) -> int:
        """Local times from this one on come again in the stretch after."""
        return self.end + min(self.after, self.offset)


class Zone:
    """One zone's stretches."""

    def __init__(self, info: ZoneInfo) -> None:
        self.info = info
        self._changes: dict[int, list[tuple[int, int, int]]] = {}
        self._latest: Stretch | None = None

    def stretch(self, instant: int) -> Stretch:
        """The one an instant lies in, cut where the years looked at end."""
        known = self._latest
        if known is not None and known.start <= instant < known.end:
            return known
        year = min(max((EPOCH + timedelta(seconds=instant)).year, FIRST_YEAR), LAST_YEAR)
        changes = [change for near in (year - 1, year, year + 1) for change in self._changes_in(near)]
        index = bisect_right(changes, instant, key=lambda change: change[0])
        # Cut well away from the years not looked at: a change near the cut could repeat local times on this side.
        start, end = _year_start(year - 1) + MARGIN, _year_start(year + 2) - MARGIN
        if index > 0:
            start, before, offset = changes[index - 1]
        else:
            before = offset = changes[index][1] if changes else self.offset(instant)
        after = offset
        if index < len(changes):
            end, after = changes[index][0], changes[index][2]
        found = Stretch(min(start, instant), max(end, instant + 1), offset, before, after)
        self._latest = found
        return found

    def offset(self, instant: int) -> int:
        """Seconds east of UTC."""
        offset = (EPOCH + timedelta(seconds=instant)).astimezone(self.info).utcoffset()
        assert offset is not None
        return offset // timedelta(seconds=1)

    def at(self, instant_us: int) -> datetime:
        """The instant with this zone's offset."""
        return (EPOCH + timedelta(microseconds=instant_us)).astimezone(self.info)

    def _changes_in(self, year: int) -> list[tuple[int, int, int]]:
        """(instant, offset until then, offset from then on) of each change in a year of UTC."""
        known = self._changes.get(year)
        if known is None:
            known = self._look(_year_start(year), _year_start(year + 1))
            if len(self._changes) >= YEARS_KEPT:
                self._changes = {}
            self._changes[year] = known
        return known

    def _look(self, start: int, end: int) -> list[tuple[int, int, int]]:
        found = []
        low, low_offset = start - 1, self.offset(start - 1)
        while low < end - 1:
            high = min(low + DAY, end - 1)
            high_offset = self.offset(high)
            if high_offset != low_offset:
                found.append((self._halve(low, high, low_offset), low_offset, high_offset))
            low, low_offset = high, high_offset
        return found

    def _halve(self, low: int, high: int, low_offset: int) -> int:
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == low_offset:
                low = middle
            else:
                high = middle
        return high


def to_us(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def find_zone(name: object, expression: object = "", start: int = 0) -> Zone:
    """The zone of an IANA name. Raises `ExpressionInvalid`, pointing at `start` of the expression it stands in."""
    if isinstance(name, str) and len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) and not _NOT_ZONES.match(name):
        try:
            return _zone(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
    expected = "the name of an IANA zone, such as Europe/Berlin or UTC"
    near = _nearest(name) if isinstance(name, str) and len(name) <= _LONGEST_NAME else None
    raise ExpressionInvalid(expression, name, "is not a time zone", f"{near}, perhaps" if near else expected, start)


def _nearest(name: str) -> str | None:
    """A zone of almost that name."""
    known = {zone.lower(): zone for zone in _known_zones()}
    last = {zone.rpartition("/")[2]: zone for zone in known}
    found = get_close_matches(name.lower(), known, 1, 0.8) or get_close_matches(name.lower(), last, 1, 0.8)
    return known[last.get(found[0], found[0])] if found else None


@lru_cache(maxsize=1)
def _known_zones() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=ZONES_KEPT)
def _zone(name: str) -> Zone:
    return Zone(ZoneInfo(name))


def _year_start(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(seconds=1)
