"""The words of readable text: days, months, ordinals, times of day."""

import re

WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth")
NOON, MIDNIGHT = 43_200, 0

_TIME = re.compile(r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?(?::(?P<second>\d\d))?(?P<half>am|pm)?", re.ASCII)
_DAY_NUMBER = re.compile(r"(\d{1,2})(st|nd|rd|th)", re.ASCII)


def weekday(word: str) -> int | None:
    """monday, mondays, mon: its number from Sunday, 0."""
    return _named(WEEKDAYS, word.removesuffix("s") if len(word) > 4 else word, {"tues": 2, "thur": 4, "thurs": 4})


def month(word: str) -> int | None:
    """march, mar: its number from January, 1."""
    found = _named(MONTHS, word, {"sept": 8})
    return None if found is None else found + 1


def ordinal(word: str) -> int | None:
    """first to fifth, 1st to 31st."""
    if word in ORDINALS:
        return ORDINALS.index(word) + 1
    found = _DAY_NUMBER.fullmatch(word)
    number = int(found[1]) if found else 0
    return number if found and 1 <= number <= 31 and suffix(number) == found[2] else None


def suffix(number: int) -> str:
    """What makes 1, 2, 3, 4 the 1st, 2nd, 3rd, 4th."""
    return "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def time_of_day(word: str) -> int | None:
    """9:00, 09:00:30, 9am, 9:30pm, noon, midnight: its second of the day. None for a bare 9."""
    if word in ("noon", "midnight"):
        return NOON if word == "noon" else MIDNIGHT
    found = _TIME.fullmatch(word)
    if found is None or (found["minute"] is None and found["half"] is None):
        return None
    hour, minute, second = int(found["hour"]), int(found["minute"] or 0), int(found["second"] or 0)
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"] == "pm" else 0)
    return hour * 3600 + minute * 60 + second if hour < 24 and minute < 60 and second < 60 else None


def clock(second_of_day: int) -> str:
    """09:00, or 09:00:30 where the seconds say something."""
    minutes, second = divmod(second_of_day, 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{second:02}" if second else text


def _named(names: tuple[str, ...], word: str, others: dict[str, int]) -> int | None:
    if word in others:
        return others[word]
    return next((number for number, name in enumerate(names) if word in (name, name[:3])), None)
