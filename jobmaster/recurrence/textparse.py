"""Readable text: `every weekday at 18:00`, `every last friday of the month at 5pm`. docs/schedules.md has the grammar.

One reader, word by word, that knows at each place what may come next; an error points at the word that does not fit.
"""

from typing import NamedTuple

from jobmaster.model.errors import ExpressionInvalid
from jobmaster.recurrence import lexicon
from jobmaster.recurrence.days import ALL_MONTHS, LAST, DayRule, length_of
from jobmaster.recurrence.interval import unit_of
from jobmaster.recurrence.reader import Reader, words_of
from jobmaster.recurrence.times import DAY, ListedTimes, Times
from jobmaster.recurrence.wallclock import Rule

LONGEST = 300
MOST_TIMES = 1_440
"""A day's times are listed, where a step and a window make them: one a minute at most."""
HOUR = 3600
CLOCK_UNITS = {"second": 1, "minute": 60, "hour": HOUR}
WORKDAYS, WEEKEND = frozenset(range(1, 6)), frozenset({0, 6})
EVERY_DAY = DayRule()
DAY_WORDS = (
    "a count and a unit ('5 minutes'), second, minute, hour, day, weekday, weekend, a weekday ('monday'), "
    "an ordinal ('1st', 'last friday'), month, or year"
)
TIME_WORDS = "a time of day, such as 18:00, 6pm, noon or midnight"


class Split(NamedTuple):
    """A text as it is stored: in lower case, with the zone apart."""

    text: str
    zone: str | None
    zone_start: int


def split_text(given: str) -> Split:
    """Take the zone off the end. Raises `ExpressionInvalid` for a text that is too long."""
    if len(given) > LONGEST:
        raise ExpressionInvalid(given, given, "is too long", f"at most {LONGEST} characters")
    words = words_of(given)
    zone, start = None, 0
    if len(words) > 2 and words[-2].text.lower() == "in":
        zone, start = words[-1]
        words = words[:-2]
    return Split(" ".join(word.text.lower() for word in words).replace(" ,", ","), zone, start)


def parse_text(text: str) -> Rule:
    """Understand a text that has no count and unit alone. Raises `ExpressionInvalid`."""
    return _Grammar(text).rule()


class _Grammar(Reader):
    def rule(self) -> Rule:
        """The whole text."""
        self.expect("every", "'every', and then a blank")
        if self.peek().isascii() and self.peek().isdigit():
            rule = self._steps(self._count())
        elif self.peek() in CLOCK_UNITS and not self._is_ordinal():
            rule = self._each(self.take())
        else:
            days = self._days()
            rule = Rule(days, ListedTimes(self._times()), real_time=False)
        if self.at < len(self.words):
            self.fail("the end, or 'in' and a time zone", "is not expected here")
        return rule

    def _is_ordinal(self) -> bool:
        """Whether `second` is the unit's namesake: every second monday of the month."""
        return self.peek() == "second" and self.peek(1) not in ("", "on", "from", "between")

    def _count(self) -> int:
        word = self.take()
        if len(word) > 9 or int(word) == 0:
            self.at -= 1
            self.fail("a count of at least 1", "is no such count")
        return int(word)

    def _steps(self, count: int) -> Rule:
        """15 minutes from 09:00 to 17:00 on weekdays, 15 minutes on weekdays: counted anew from the start, each day."""
        unit = unit_of(self.peek())
        if unit not in CLOCK_UNITS:
            self.fail("seconds, minutes or hours: only they can have a time or days", "is too long a unit here")
        self.at += 1
        step = count * CLOCK_UNITS[unit]
        return self._spread(step, 0, DAY - 1, 1) if self.peek() == "on" else self._window(step)

    def _each(self, unit: str) -> Rule:
        """second, minute, hour; with a window, with the minutes of the hour, and on certain days."""
        if self.peek() in ("from", "between"):
            return self._window(CLOCK_UNITS[unit])
        minutes = {0} if unit == "hour" else set(range(60))
        if unit == "hour" and self.skip("at"):
            minutes = set(self.list_of(self._minute))
        seconds = range(60) if unit == "second" else (0,)
        return Rule(self._on_days(), Times(range(24), minutes, seconds), real_time=True)

    def _window(self, step: int) -> Rule:
        between = self.peek() == "between"
        if not (self.skip("from") or self.skip("between")):
            self.fail("'from', a time, 'to' and a time")
        start = self._time()
        if not self.skip("and" if between else "to"):
            self.fail("'and' and a time" if between else "'to' and a time")
        end = self._time()
        if end < start:
            self.at -= 1
            self.fail(f"a time that is not before {lexicon.clock(start)}: a window can't pass midnight")
        return self._spread(step, start, end, self.at - 1)

    def _spread(self, step: int, start: int, end: int, at: int) -> Rule:
        if (end - start) // step > MOST_TIMES:
            self.at = at
            self.fail(
                "a longer step or a shorter window, or a cron expression", f"makes more than {MOST_TIMES:,} times"
            )
        times = range(start, end + 1, step)
        every_hour = len({time // HOUR for time in times}) == 24
        return Rule(self._on_days(), ListedTimes(times), real_time=step < HOUR or every_hour)

    def _on_days(self) -> DayRule:
        if not self.skip("on"):
            return EVERY_DAY
        if (days := self._weekdays()) is None:
            self.fail("weekdays, weekends, or days of the week")
        return days

    def _days(self) -> DayRule:
        word = self.peek()
        if word == "day":
            self.at += 1
            return EVERY_DAY
        if word == "week":
            self.at += 1
            self.expect("on", "'on' and a day of the week, as in 'every week on monday'")
            return self._weekdays() or self.fail("a day of the week")
        if word == "month":
            self.at += 1
            self.expect("on", "'on the' and an ordinal, as in 'every month on the 1st'")
            self.skip("the")
            return self._in_month()
        if word == "year":
            self.at += 1
            self.expect("on", "'on' and a date, as in 'every year on march 1'")
            return self._in_year()
        if (days := self._weekdays()) is not None:
            return days
        if lexicon.ordinal(word) is None and word != "last":
            self.fail(DAY_WORDS)
        days = self._in_month()
        self.expect("of", "'of the month'")
        self.skip("the")
        self.expect("month", "'month'")
        return days

    def _weekdays(self) -> DayRule | None:
        """weekday, weekend, monday to friday, monday and friday; None where none of them stands here."""
        word = self.peek()
        if word.removesuffix("s") in ("weekday", "weekend"):
            self.at += 1
            if word == "weekend":
                self.skip("day")
            chosen = WORKDAYS if word.startswith("weekday") else WEEKEND
        elif lexicon.weekday(word) is not None:
            chosen = frozenset(day for days in self.list_of(self._weekday_or_range) for day in days)
        else:
            return None
        return DayRule(any_weekday=False, weekdays=chosen)

    def _weekday_or_range(self) -> list[int]:
        first = self.value(lexicon.weekday, "a day of the week")
        if not (self.skip("to") or self.skip("through")):
            return [first]
        last = self.value(lexicon.weekday, "a day of the week")
        return [day % 7 for day in range(first, last + (7 if last < first else 0) + 1)]

    def _in_month(self) -> DayRule:
        """1st and 15th, first and third monday, last day, last weekday: all of them together."""
        days, nth, flags, nearest = set[int](), set[tuple[int, int]](), set[str](), set[int]()
        kind: int | str = "day"
        # An ordinal without a day of its own has that of the next: first and third monday.
        for number, own, at in reversed(self.list_of(self._day_of_month)):
            kind = kind if own is None else own
            if isinstance(kind, int):
                self.check(number <= len(lexicon.ORDINALS), at, "'first' to 'fifth' or 'last' before a day of the week")
                nth.add((kind, number))
            elif kind == "weekday":
                self.check(number in (LAST, 1), at, "'first' or 'last' before weekday, or a day of the week")
                nearest |= {1} if number == 1 else set()
                flags |= {kind} if number == LAST else set()
            elif number == LAST:
                flags.add(kind)
            else:
                days.add(number)
        return DayRule(
            any_day=not (days or flags or nearest),
            days=frozenset(days),
            last_day="day" in flags,
            last_workday="weekday" in flags,
            nearest=frozenset(nearest),
            any_weekday=not nth,
            nth=frozenset(nth),
        )

    def check(self, fits: bool, at: int, expected: str) -> None:
        if not fits:
            self.at = at
            self.fail(expected, "can't stand here")

    def _day_of_month(self) -> tuple[int, int | str | None, int]:
        """(which one, then `day`, `weekday`, a day of the week or nothing, where it stands)."""
        self.skip("the")
        at = self.at
        number = LAST if self.skip("last") else self.value(lexicon.ordinal, "an ordinal, such as 1st, first or last")
        kind = self.peek()
        own: int | str | None = kind if kind in ("day", "weekday") else lexicon.weekday(kind)
        if own is None and number == LAST and kind not in (",", "and"):
            self.fail("day, weekday or a day of the week after 'last'")
        self.at += own is not None
        return number, own, at

    def _in_year(self) -> DayRule:
        """march 1, march 1st, 1 march, 1st of march, last day of february."""
        self.skip("the")
        if (month := lexicon.month(self.peek())) is not None:
            self.at += 1
            self.skip("the")
            return self._dated(month, self.value(_day_number, "a day of the month"), self.at - 1)
        at = self.at
        if self.skip("last"):
            self.expect("day", "'day'")
            self.expect("of", "'of' and a month")
            return DayRule(months=self._one_month(), any_day=False, last_day=True)
        day = self.value(_day_number, "a month and a day, such as 'march 1'")
        self.skip("of")
        return self._dated(next(iter(self._one_month())), day, at)

    def _one_month(self) -> frozenset[int]:
        return frozenset({self.value(lexicon.month, "a month")})

    def _dated(self, month: int, day: int, at: int) -> DayRule:
        if day > length_of(month, leap=True):
            self.at = at
            name = lexicon.MONTHS[month - 1].capitalize()
            self.fail(f"a day that {name} has", f"is no day of {name}: it would never happen")
        return DayRule(months=frozenset({month}) & ALL_MONTHS, any_day=False, days=frozenset({day}))

    def _times(self) -> list[int]:
        return self.list_of(self._time) if self.skip("at") else [lexicon.MIDNIGHT]

    def _time(self) -> int:
        word = self.peek()
        following = self.peek(1)
        if following in ("am", "pm") and (joined := lexicon.time_of_day(word + following)) is not None:
            self.at += 2
            return joined
        return self.value(lexicon.time_of_day, TIME_WORDS)

    def _minute(self) -> int:
        self.skip("minute")
        return self.value(_minute_number, "a minute of the hour, such as :15")


def _day_number(word: str) -> int | None:
    return int(word) if word.isdigit() and len(word) < 3 and 1 <= int(word) <= 31 else lexicon.ordinal(word)


def _minute_number(word: str) -> int | None:
    number = word.removeprefix(":")
    return int(number) if number.isascii() and number.isdigit() and len(number) <= 2 and int(number) < 60 else None
