"""Intervals: real time in equal steps from an anchor, whatever the clocks on the wall do."""

import re
from datetime import timedelta

from jobmaster.model.errors import LONGEST_DELAY, ExpressionInvalid, OptionInvalid

MICROSECOND = timedelta(microseconds=1)
SHORTEST_US = 1_000_000
LONGEST_US = LONGEST_DELAY // MICROSECOND
LIMITS = "at least 1 second and at most 36,525 days (100 years)"

UNITS = {
    "week": 604_800_000_000,
    "day": 86_400_000_000,
    "hour": 3_600_000_000,
    "minute": 60_000_000,
    "second": 1_000_000,
    "millisecond": 1_000,
    "microsecond": 1,
}
SHORT_UNITS = {"sec": "second", "min": "minute", "h": "hour", "hr": "hour", "ms": "millisecond", "us": "microsecond"}
_FORM = re.compile(r"every (\d+) ?([a-z]+)", re.ASCII)


class Interval:
    """Occurrences at anchor + n · step, for every whole n."""

    __slots__ = ("anchor_us", "step_us")

    def __init__(self, step_us: int, anchor_us: int) -> None:
        self.step_us = step_us
        self.anchor_us = anchor_us

    def at_or_after(self, instant_us: int) -> int:
        """The first one that is not before that instant."""
        return self.anchor_us - (self.anchor_us - instant_us) // self.step_us * self.step_us

    def at_or_before(self, instant_us: int) -> int:
        """The last one that is not after that instant."""
        return self.anchor_us + (instant_us - self.anchor_us) // self.step_us * self.step_us


def interval_text(step: timedelta) -> str:
    """The text of an interval, in the largest unit that needs no fraction. Raises `OptionInvalid`."""
    step_us = step // MICROSECOND
    if not SHORTEST_US <= step_us <= LONGEST_US:
        raise OptionInvalid("interval", step, LIMITS)
    unit = next(unit for unit, size in UNITS.items() if unit != "week" and step_us % size == 0)
    count = step_us // UNITS[unit]
    return f"every {count} {unit}{'' if count == 1 else 's'}"


def is_interval(text: str) -> bool:
    """Whether a text, in lower case and with single blanks, is that of an interval: a count and a unit, and no more."""
    found = _FORM.fullmatch(text)
    return found is not None and found[2] not in ("st", "nd", "rd", "th")


def unit_of(word: str) -> str | None:
    """The unit that a word names: minutes, minute, min."""
    word = SHORT_UNITS.get(word, word).removesuffix("s")
    word = SHORT_UNITS.get(word, word)
    return word if word in UNITS else None


def parse_interval(text: str) -> int:
    """The step in microseconds. Raises `ExpressionInvalid`."""
    found = _FORM.fullmatch(text)
    unit = None if found is None else unit_of(found[2])
    if found is None or unit is None:
        word = text[6:] if found is None else found[2]
        start = 6 if found is None else found.start(2)
        raise ExpressionInvalid(text, word, "is not a count and a unit", f"one of {', '.join(UNITS)}", start)
    # Few enough digits to be counted with: more are too many anyway.
    step_us = int(found[1]) * UNITS[unit] if len(found[1]) <= 18 else LONGEST_US + 1
    if not SHORTEST_US <= step_us <= LONGEST_US:
        raise ExpressionInvalid(text, text[6:], "is too short or too long an interval", LIMITS, 6)
    return step_us
