"""No occurrence is lost or doubled where offsets change: against an oracle that looks at every minute."""

from itertools import islice
from random import Random
from zoneinfo import available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jobmaster.recurrence.zones import find_zone
from tests.sizes import SIZES
from tests.unit.recurrence.brute import EPOCH, Change, Minutes, changes, differences, seconds, telling

# Half an hour (Lord Howe), midnight (Santiago, Amman, Havana), a day (Apia, Kwajalein), seconds (Monrovia), negative
# summer time (Dublin), several a year (Casablanca, Gaza, Cairo), two hours (Troll), odd quarters (Chatham, Pyongyang).
TELLING_ZONES = [
    "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Asia/Amman", "America/Havana", "Pacific/Apia",
    "Pacific/Kwajalein", "Africa/Monrovia", "Europe/Dublin", "Africa/Casablanca", "Asia/Gaza", "Africa/Cairo",
    "Antarctica/Troll", "Pacific/Chatham", "Asia/Pyongyang", "America/New_York",
]  # fmt: skip
ALL_ZONES = sorted(name for name in available_timezones() if name not in {"localtime", "Factory"})
ZONES = ALL_ZONES if SIZES.every_zone else TELLING_ZONES


_seen: set[tuple[Change, ...]] = set()


def sampled(name: str) -> list[Change]:
    """The changes of a zone: all, or as many as the size says, the oldest and newest among them."""
    found = changes(name)
    if SIZES.every_zone or len(found) <= SIZES.zone_changes:
        return found
    return [found[0], *sorted(Random(name).sample(found[1:-1], SIZES.zone_changes - 2)), found[-1]]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ZONES)
def test_every_policy_at_every_change(name: str) -> None:
    found = tuple(sampled(name))
    if found in _seen:
        return  # another name of a zone that was looked at
    _seen.add(found)
    wrong = (fault for change in found for fault in differences(name, change, telling(change)))
    assert [*islice(wrong, 3)] == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ZONES)
def test_every_change_is_found(name: str) -> None:
    first, last = (seconds(EPOCH.replace(year=year)) for year in (1970, 2038))
    forward, backward = [], []
    zone, instant = find_zone(name), first
    while instant < last:
        stretch = zone.stretch(instant)
        if stretch.end < last and stretch.after != stretch.offset:
            forward.append(Change(stretch.end, stretch.offset, stretch.after))
        instant = stretch.end
    instant = last - 1
    while instant >= first:
        stretch = zone.stretch(instant)
        if stretch.start >= first and stretch.before != stretch.offset:
            backward.append(Change(stretch.start, stretch.before, stretch.offset))
        instant = stretch.start - 1
    assert forward == changes(name)
    assert backward == changes(name)[::-1]


hours = st.frozensets(st.integers(0, 23), min_size=1)
minutes = st.frozensets(st.integers(0, 59), min_size=1, max_size=12)
weekdays = st.frozensets(st.integers(0, 6), min_size=1)


@pytest.mark.timeout(600)
@settings(max_examples=SIZES.examples * 2, deadline=None)
@given(st.data())
def test_any_rule_at_any_change(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(ZONES))
    assume(changes(name))
    change = data.draw(st.sampled_from(changes(name)))
    rule = Minutes(data.draw(minutes), data.draw(hours), data.draw(weekdays))
    assert differences(name, change, [rule]) == []
