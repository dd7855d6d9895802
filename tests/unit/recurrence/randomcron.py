"""Random cron expressions, made together with the days and times they mean: no parser is needed to judge one."""

from calendar import monthrange
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import islice, product
from random import Random
from typing import NamedTuple

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
HORIZON = timedelta(days=366 * 9)


class Field(NamedTuple):
    """The text of a field, what it means, and what about it others are known to read otherwise."""

    text: str
    values: frozenset[int]
    special: str = ""
    traits: frozenset[str] = frozenset()


class Sample(NamedTuple):
    """An expression and what it means."""

    fields: tuple[Field, ...]

    @property
    def text(self) -> str:
        return " ".join(field.text for field in self.fields)

    @property
    def traits(self) -> frozenset[str]:
        days, weekdays = self.fields[-3], self.fields[-1]
        found = frozenset().union(*(field.traits for field in self.fields))
        restricted = days.text not in ("*", "?", "*/1") and weekdays.text not in ("*", "?", "*/1")
        both = {"both days"} if restricted else set()
        if days.text == "*/1" or weekdays.text == "*/1":
            both |= {"*/1 day"}
        if restricted and (len(days.values) == 31 or len(weekdays.values) == 7):
            both |= {"both days, one of them full"}
        if restricted and (days.text.startswith("*") or weekdays.text.startswith("*")):
            both |= {"both days, one with a star"}
        return found | both

    def is_day(self, day: date) -> bool:
        days, months, weekdays = self.fields[-3:]
        if day.month not in months.values:
            return False
        by_day, by_weekday = _by_day(days, day), _by_weekday(weekdays, day)
        if days.text in ("*", "?", "*/1"):
            return by_weekday
        if weekdays.text in ("*", "?", "*/1"):
            return by_day
        return by_day or by_weekday

    def times(self) -> list[time]:
        clock = self.fields[:-3]
        seconds = sorted(clock[0].values) if len(clock) == 3 else [0]
        hours, minutes = sorted(clock[-1].values), sorted(clock[-2].values)
        return [time(hour, minute, second) for hour, minute, second in product(hours, minutes, seconds)]

    def after(self, start: datetime, count: int) -> list[datetime]:
        """The next ones, found by looking at each day of nine years."""
        return [*islice(self._all_after(start), count)]

    def _all_after(self, start: datetime) -> Iterator[datetime]:
        times, day = self.times(), start.date()
        while day < (start + HORIZON).date():
            if self.is_day(day):
                for at in times:
                    moment = datetime.combine(day, at, start.tzinfo)
                    if moment > start:
                        yield moment
            day += timedelta(days=1)


def sample(random: Random) -> Sample:
    """Any expression of five or six fields."""
    clock = [_clock(random, 59), _clock(random, 23)]
    if random.random() < 0.3:
        clock.insert(0, _clock(random, 59))
    return Sample((*clock, _days(random), _months(random), _weekdays(random)))


def _clock(random: Random, high: int) -> Field:
    return _plain(random, 0, high)


def _days(random: Random) -> Field:
    kind = random.random()
    if kind < 0.4:
        return Field(random.choice("**?"), frozenset(range(1, 32)))
    if kind < 0.5:
        return Field("L", frozenset(), "L")
    if kind < 0.55:
        return Field("LW", frozenset(), "LW", frozenset({"LW"}))
    if kind < 0.65:
        day = random.randint(1, 31)
        return Field(f"{day}W", frozenset({day}), "W", frozenset({"W"}))
    return _plain(random, 1, 31)


def _months(random: Random) -> Field:
    return _plain(random, 1, 12, MONTHS) if random.random() < 0.4 else Field("*", frozenset(range(1, 13)))


def _weekdays(random: Random) -> Field:
    kind = random.random()
    if kind < 0.4:
        return Field(random.choice("**?"), frozenset(range(7)))
    if kind < 0.5:
        day = random.randrange(7)
        return Field(f"{WEEKDAYS[day]}L", frozenset({day}), "last", frozenset({"nth"}))
    if kind < 0.6:
        day, which = random.randrange(7), random.randint(1, 5)
        return Field(f"{WEEKDAYS[day]}#{which}", frozenset({day}), f"#{which}", frozenset({"nth"}))
    if kind < 0.65:
        first, last = sorted(random.sample(range(7), 2), reverse=True)
        chosen = frozenset(day % 7 for day in range(first, last + 8))
        return Field(f"{WEEKDAYS[first]}-{WEEKDAYS[last]}", chosen, "", frozenset({"wrap"}))
    return _plain(random, 0, 6, WEEKDAYS)


def _plain(random: Random, low: int, high: int, names: tuple[str, ...] = ()) -> Field:
    texts, values, traits = [], set[int](), set[str]()
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        item = _item(random, low, high, names)
        texts.append(item.text)
        values |= item.values
        traits |= item.traits
    if "*" in texts:
        return Field("*", frozenset(range(low, high + 1)))
    if "*/1" in texts and len(texts) > 1:
        texts = ["*/1"]
    return Field(",".join(texts), frozenset(values), "", frozenset(traits))


def _item(random: Random, low: int, high: int, names: tuple[str, ...]) -> Field:
    first, last = sorted((random.randint(low, high), random.randint(low, high)))
    step = random.choice((1, 2, 3, 5, 7, 10, 15, 40))
    kind = random.randrange(7)
    weekday = "step of weekdays" if len(names) == 7 else ""
    if kind == 0:
        return Field("*", frozenset(range(low, high + 1)))
    if kind == 1:
        return Field(f"*/{step}", frozenset(range(low, high + 1, step)))
    if kind == 2:
        return Field(
            f"{_name(random, first, low, names)}/{step}",
            frozenset(range(first, high + 1, step)),
            "",
            frozenset({weekday} - {""}),
        )
    if kind in (3, 4):
        text, traits = f"{_name(random, first, low, names)}-{_name(random, last, low, names)}", set[str]()
        if first == last:
            traits.add("a-a")
        if kind == 4:
            return Field(f"{text}/{step}", frozenset(range(first, last + 1, step)), "", frozenset(traits))
        return Field(text, frozenset(range(first, last + 1)), "", frozenset(traits))
    return Field(_name(random, first, low, names), frozenset({first}))


def _name(random: Random, value: int, low: int, names: tuple[str, ...]) -> str:
    if not names or random.random() < 0.5:
        return str(value)
    return names[value - low].lower() if random.random() < 0.3 else names[value - low]


def _by_day(field: Field, day: date) -> bool:
    length = monthrange(day.year, day.month)[1]
    if field.special == "L":
        return day.day == length
    if field.special in ("LW", "W"):
        wanted = length if field.special == "LW" else min(min(field.values), length)
        workdays = [date(day.year, day.month, number) for number in range(1, length + 1)]
        workdays = [each for each in workdays if each.isoweekday() < 6]
        # The nearest; of a Saturday that is the Friday before, of a Sunday the Monday after, where the month has it.
        nearest = min(workdays, key=lambda each: (abs(each.day - wanted), each.day))
        return day == nearest
    return day.day in field.values


def _by_weekday(field: Field, day: date) -> bool:
    if day.isoweekday() % 7 not in field.values:
        return False
    if field.special == "last":
        return day.day + 7 > monthrange(day.year, day.month)[1]
    return not field.special or (day.day - 1) // 7 + 1 == int(field.special[1:])
