"""The fields of a cron expression: each item checked, and written as croniter understands it.

An error points at the item. What croniter reads otherwise than people mean is written out: `MONL` is its `L1`, `LW` is
a rule of our own, `5-5` is 5 and not everything, `FRI-MON` goes round the end of the week.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from jobmaster.model.errors import ExpressionInvalid

LONGEST = 1_000
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


class Field(NamedTuple):
    """What may stand in one field."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """Its values, for a message."""
        named = f", or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.name}s from {self.low} to {self.high}{named}"


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY_OF_MONTH = Field("day", 1, 31)
MONTH = Field("month", 1, 12, MONTHS)
DAY_OF_WEEK = Field("weekday", 0, 7, WEEKDAYS)
FIELDS = (SECOND, MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK)

WORD = re.compile(r"\S+", re.ASCII)
_FORM = re.compile(r"(?:(?P<any>[*?])|(?P<low>\d+|[A-Z]+)(?:-(?P<high>\d+|[A-Z]+))?)(?:/(?P<step>\d+))?", re.ASCII)
_NTH = re.compile(r"(?P<low>\d|[A-Z]{3})(?:-(?P<high>\d|[A-Z]{3}))?#(?P<nth>[1-5])", re.ASCII)
_LAST = re.compile(r"(?P<after>\d|[A-Z]{3})L|L(?P<before>\d)", re.ASCII)
_NEAREST = re.compile(r"\d+W", re.ASCII)


class Item(NamedTuple):
    """One item of a list in a field, and where it stands."""

    expression: str
    field: Field
    text: str
    start: int

    def fault(self, problem: str, expected: str = "", word: str = "") -> ExpressionInvalid:
        """What to raise for it, or for a word in it."""
        where = self.start + (self.text.find(word) if word else 0)
        said = f"in the {self.field.name} field {problem}"
        return ExpressionInvalid(self.expression, word or self.text, said, expected or self.field.expected, where)

    def number(self, text: str) -> int:
        """A value, written as a number or as a name."""
        if text in self.field.names:
            return self.field.names.index(text) + self.field.low
        if text.isdigit() and len(text) < LONGEST and self.field.low <= int(text) <= self.field.high:
            return int(text)
        raise self.fault("is out of range" if text.isdigit() else "has no meaning", word=text)


class Written(NamedTuple):
    """An expression as croniter shall have it."""

    text: str
    own: frozenset[str]
    """`LW` where the day field has it, and `alone` where it has nothing else."""
    fields: tuple[tuple[Item, ...], ...]


def written_out(expression: str) -> Written:
    """Six fields in croniter's own words, each item checked. Raises `ExpressionInvalid`."""
    if len(expression) > LONGEST:
        raise ExpressionInvalid(expression, expression, "is too long", f"at most {LONGEST:,} characters")
    if not expression.isascii():
        # Beyond ASCII, upper case may be longer, and digits and blanks are not those of cron.
        word = next(word for word in re.finditer(r"[^ \t\r\n]+", expression) if not word.group().isascii())
        raise ExpressionInvalid(expression, word.group(), "has no meaning", "letters and digits of ASCII", word.start())
    upper = expression.upper()
    if upper.lstrip().startswith("@"):
        alias = ALIASES.get(upper.strip().lower())
        if alias is None:
            raise ExpressionInvalid(expression, expression, "is no alias", f"one of {', '.join(ALIASES)}")
        upper = alias
    words = list(WORD.finditer(upper))
    if len(words) not in (5, 6):
        raise ExpressionInvalid(
            expression,
            expression,
            f"has {len(words)} field{'' if len(words) == 1 else 's'}",
            "5 fields (minute hour day month weekday), 6 with seconds first, an alias such as @daily, "
            "or a text such as 'every weekday at 18:00'",
        )
    fields = FIELDS[len(FIELDS) - len(words) :]
    items = tuple(
        tuple(_items(expression, field, word.group(), word.start())) for field, word in zip(fields, words, strict=True)
    )
    own: set[str] = set()
    texts = ["0"] if len(words) == 5 else []
    for field, some in zip(fields, items, strict=True):
        texts.append(_field_text(field, some, own))
    return Written(" ".join(texts), frozenset(own), items)


def _items(expression: str, field: Field, text: str, start: int) -> Iterator[Item]:
    parts = text.split(",")
    if "" in parts:
        raise Item(expression, field, text, start).fault("has an empty item")
    for part in parts:
        yield Item(expression, field, part, start)
        start += len(part) + 1


def _field_text(field: Field, items: tuple[Item, ...], own: set[str]) -> str:
    special = [item for item in items if field is DAY_OF_WEEK and _special_weekday(item) is not None]
    if special and len(special) < len(items):
        other = next(item for item in items if item not in special)
        raise other.fault(
            f"can't be listed together with {special[0].text}",
            "either weekdays or such as MONL and MON#1: make two schedules of it",
        )
    nearest = next((item for item in items if field is DAY_OF_MONTH and _NEAREST.fullmatch(item.text)), None)
    if nearest is not None and len([item for item in items if item.text != "LW"]) > 1:
        raise nearest.fault("can't be in a list", "a single day with W: make two schedules of it")
    texts = []
    for item in items:
        if field is DAY_OF_MONTH and item.text == "LW":
            own.add("LW")
        else:
            texts.append(_special_weekday(item) or _written(item))
    if "*" in texts:
        if field is DAY_OF_MONTH:
            own.clear()
        return "*"
    if not texts:
        # Something has to stand where LW was alone, so that croniter sees a restriction.
        own.add("alone")
        return "L"
    return ",".join(texts)


def _special_weekday(item: Item) -> str | None:
    """`MONL` and `SUN#1` as croniter writes them."""
    if item.field is not DAY_OF_WEEK:
        return None
    if found := _LAST.fullmatch(item.text):
        return f"L{item.number(found['after'] or found['before']) % 7}"
    if found := _NTH.fullmatch(item.text):
        days = _range(item, found["low"], found["high"] or found["low"], 1)
        return ",".join(f"{day % 7}#{found['nth']}" for day in days)
    return None


def _written(item: Item) -> str:
    text, field = item.text, item.field
    if field is DAY_OF_MONTH:
        if text == "L":
            return text
        if _NEAREST.fullmatch(text):
            return f"{item.number(text[:-1])}W"
        text = re.sub("-L(?=$|/)", "-31", text)
    found = _FORM.fullmatch(text)
    if found is None:
        special = {DAY_OF_MONTH: ", L, LW, 15W", DAY_OF_WEEK: ", MONL, MON#1"}.get(field, "")
        raise item.fault("has no meaning", f"{field.expected}, as one of *, a, a-b, */n, a/n, a-b/n{special}")
    step = int(found["step"]) if found["step"] else 1
    if step == 0:
        raise item.fault("has a step of 0", "a step of at least 1", word=f"/{found['step']}")
    if found["any"]:
        return "*" if step == 1 else f"*/{step}"
    if found["high"] is None:
        low = item.number(found["low"])
        if found["step"] and field is DAY_OF_WEEK:
            # From there to the end of the week; croniter takes 7/2 for 0/2.
            return ",".join(str(number % 7) for number in range(low, max(low, 6) + 1, step))
        return f"{low}/{step}" if found["step"] else str(low)
    return ",".join(str(number) for number in _range(item, found["low"], found["high"], step))


def _range(item: Item, low_text: str, high_text: str, step: int) -> list[int]:
    low, high = item.number(low_text), item.number(high_text)
    if low <= high:
        return list(range(low, high + 1, step))
    # Names go round: FRI-MON, NOV-FEB. Numbers the wrong way round are more often a slip.
    bottom, top = item.field.low, 6 if item.field is DAY_OF_WEEK else item.field.high
    if low_text.isdigit() or high_text.isdigit():
        if high_text == "SUN":
            return list(range(low, 8, step))
        raise item.fault("runs backwards", f"{low}-{top},{bottom}-{high}, if that is what is meant")
    size = top - bottom + 1
    return [bottom + (number - bottom) % size for number in range(low, high + size + 1, step)]
