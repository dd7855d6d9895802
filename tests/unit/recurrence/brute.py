"""An oracle that shares nothing with what it judges: every local minute is looked at, and `zoneinfo` is asked of each
whether it exists, once or twice."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from jobmaster.recurrence import Recurrence, cron

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local times are without a zone
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
PROBE = 3 * 3600
HOUR = 3600
POLICIES: list[tuple[str | None, str | None]] = [
    (None, None),
    *((gap, fold) for gap in ("shift", "skip") for fold in ("first", "last", "both")),
]


class Minutes(NamedTuple):
    """Which minutes of which hours, on which weekdays (from Sunday, 0): what is tested, and its cron expression."""

    minutes: frozenset[int]
    hours: frozenset[int]
    weekdays: frozenset[int] = frozenset(range(7))

    @property
    def cron(self) -> str:
        return f"{_listed(self.minutes, 60)} {_listed(self.hours, 24)} * * {_listed(self.weekdays, 7)}"

    def has(self, local: datetime) -> bool:
        return local.minute in self.minutes and local.hour in self.hours and local.isoweekday() % 7 in self.weekdays


class Change(NamedTuple):
    """A change of offset: from this second since 1970 on `after` seconds east of UTC, until then `before`."""

    at: int
    before: int
    after: int


class Local(NamedTuple):
    """A local minute: the instants at which clocks show it. One that is left out has none, and where it moves to."""

    naive: datetime
    instants: tuple[int, ...]
    moved_to: int | None


def offset_at(zone: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    assert offset is not None
    return offset // SECOND


@lru_cache(maxsize=64)
def changes(name: str, first_year: int = 1970, last_year: int = 2037) -> list[Change]:
    """All changes of offset, found by asking every three hours."""
    zone = ZoneInfo(name)
    start, end = (seconds(EPOCH.replace(year=year)) for year in (first_year, last_year + 1))
    found, before = [], offset_at(zone, start)
    for probe in range(start + PROBE, end, PROBE):
        after = offset_at(zone, probe)
        if after != before:
            found.append(Change(_first(zone, probe - PROBE, probe, before), before, after))
            before = after
    return found


def _first(zone: ZoneInfo, low: int, high: int, before: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset_at(zone, middle) == before else (low, middle)
    return high


def seconds(naive: datetime) -> int:
    return (naive - EPOCH) // SECOND


def instants_of(zone: ZoneInfo, naive: datetime) -> tuple[int, ...]:
    """The instants at which the clocks show it: none, one or two, in order."""
    found = set()
    for fold in (0, 1):
        instant = naive.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) == naive:
            found.add(seconds(instant.replace(tzinfo=None)))
    return tuple(sorted(found))


def local_minutes(zone: ZoneInfo, first: datetime, last: datetime) -> list[Local]:
    """Every local minute from the first to the last, in order."""
    found: list[Local] = []
    naive = first
    while naive <= last:
        found.append(Local(naive, instants_of(zone, naive), None))
        naive += MINUTE
    valid: datetime | None = None
    for index in range(len(found) - 1, -1, -1):
        local = found[index]
        if local.instants:
            valid = local.naive
        elif valid is not None:
            found[index] = local._replace(moved_to=_first_valid(zone, valid))
    return found


def _first_valid(zone: ZoneInfo, valid: datetime) -> int:
    """The first instant of the stretch in which a local minute after a gap lies: back second by second."""
    while instants_of(zone, valid - SECOND):
        valid -= SECOND
    return instants_of(zone, valid)[0]


def expected(
    locals_: Iterable[Local], rule: Minutes, gap: str | None, fold: str | None, window: tuple[int, int]
) -> dict[int, str | None]:
    """Instants and marks of a rule that has these local minutes, by the documented policy, from and to before."""
    real_time = len(rule.minutes) > 1 or len(rule.hours) == 24
    gap = gap or ("skip" if real_time else "shift")
    fold = fold or ("both" if real_time else "first")
    found: dict[int, str | None] = {}
    for local in locals_:
        if len(local.instants) == 1:
            found[local.instants[0]] = None
        elif len(local.instants) == 2:
            if fold != "last":
                found[local.instants[0]] = "fold-1"
            if fold != "first":
                found[local.instants[1]] = "fold-2"
        elif gap == "shift" and local.moved_to is not None:
            found.setdefault(local.moved_to, "gap")
    return {at: mark for at, mark in sorted(found.items()) if window[0] <= at < window[1]}


def computed(recurrence: Recurrence, window: tuple[int, int]) -> dict[int, str | None]:
    """What the product says of the same."""
    start, end = (at * 1_000_000 for at in window)
    ticks = [*recurrence.between(start, end)]
    shown = recurrence.preview(start, len(ticks), inclusive=True)
    assert [tick.at_us for tick in shown] == ticks
    assert recurrence.latest(start - 1, end - 1, len(ticks) + 1) == ticks
    return {tick.at_us // 1_000_000: tick.mark for tick in shown}


def around(zone: ZoneInfo, change: Change) -> tuple[list[Local], tuple[int, int]]:
    """The local minutes around a change, and the instants about which they tell all."""
    reach = abs(change.after - change.before) + 2 * HOUR
    window = change.at - reach, change.at + reach
    low = EPOCH + timedelta(seconds=window[0] + min(change.before, change.after) - HOUR)
    high = EPOCH + timedelta(seconds=window[1] + max(change.before, change.after) + HOUR)
    return local_minutes(zone, low.replace(second=0), high.replace(second=0)), window


def telling(change: Change) -> Iterator[Minutes]:
    """Rules that come up at the change: in the middle of what it leaves out or repeats, at its edges, across it."""
    low, high = sorted((change.at + change.before, change.at + change.after))
    middle, start, end = (EPOCH + timedelta(seconds=at) for at in ((low + high) // 2, low, high))
    all_hours, hours = frozenset(range(24)), frozenset(range(0, 24, 2))
    yield Minutes(frozenset(range(0, 60, 5)), all_hours)
    yield Minutes(frozenset({0}), all_hours)
    yield Minutes(frozenset({30}), hours)
    yield Minutes(frozenset({0, 30}), frozenset({start.hour, end.hour}))
    for at in (middle, start, end, start - MINUTE, end - MINUTE):
        yield Minutes(frozenset({at.minute}), frozenset({at.hour}))
    yield Minutes(frozenset({middle.minute}), frozenset({middle.hour}), frozenset({middle.isoweekday() % 7}))


def differences(name: str, change: Change, rules: Iterable[Minutes]) -> list[str]:
    """Where the product and the oracle disagree, around a change, under every policy."""
    locals_, window = around(ZoneInfo(name), change)
    found = []
    for rule in rules:
        named = [local for local in locals_ if rule.has(local.naive)]
        for gap, fold in POLICIES:
            right = expected(named, rule, gap, fold, window)
            got = computed(cron(rule.cron, name, gap=gap, fold=fold), window)
            if right != got:
                found.append(f"{name} {change} {rule.cron} {gap} {fold}: {right} but {got}")
    return found


def _listed(values: frozenset[int], size: int) -> str:
    return "*" if len(values) == size else ",".join(map(str, sorted(values)))
