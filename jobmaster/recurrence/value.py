"""The value type of a schedule's rule: what is stored, compared and asked for the next tick."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from jobmaster.model.errors import ExpressionInvalid, OptionInvalid
from jobmaster.recurrence.cronparse import normal_cron
from jobmaster.recurrence.interval import interval_text, is_interval, parse_interval
from jobmaster.recurrence.plan import IntervalPlan, WallPlan, cron_plan, text_plan
from jobmaster.recurrence.policy import REAL_TIME, Fold, Gap, Mark
from jobmaster.recurrence.resolve import FIRST_INSTANT, LAST_INSTANT
from jobmaster.recurrence.textparse import split_text
from jobmaster.recurrence.wallclock import Rule
from jobmaster.recurrence.zones import find_zone

UTC_NAME = "UTC"
FIRST_US, LAST_US = FIRST_INSTANT * 1_000_000, LAST_INSTANT * 1_000_000
"""Ticks lie in the years 4 to 9996."""


class Kind(StrEnum):
    """How an expression is to be read."""

    CRON = "cron"
    INTERVAL = "interval"
    TEXT = "text"


class Tick(NamedTuple):
    """One occurrence, for display."""

    at_us: int
    at: datetime
    """The same instant, with the offset that the schedule's zone has then."""
    mark: Mark | None


class Recurrence(Struct, frozen=True, omit_defaults=True):
    """When something recurs. A value: equal ones have equal JSON, and any process computes the same ticks from it.

    Made by `cron(…)` or `Recurrence.of(…)`, which check it; one that comes from a store is checked when it is first
    asked, and then raises `ExpressionInvalid`.
    """

    kind: Kind
    expression: str
    timezone: str = UTC_NAME
    gap: Gap | None = None
    """None: the `auto` rule."""
    fold: Fold | None = None
    """None: the `auto` rule."""
    anchor_us: int | None = None
    """From where an interval counts; None until it is known, and then it counts from 1970."""

    @classmethod
    def of(
        cls,
        when: "Recurrence | timedelta | str",
        timezone: str | None = None,
        *,
        gap: Gap | str | None = None,
        fold: Fold | str | None = None,
    ) -> "Recurrence":
        """The checked recurrence of an interval, a text or a cron expression. Raises `ExpressionInvalid`,
        `OptionInvalid`."""
        if isinstance(when, Recurrence):
            if timezone is not None or gap is not None or fold is not None:
                raise OptionInvalid("timezone, gap, fold", (timezone, gap, fold), "none: the recurrence has its own")
            return when.checked()
        if isinstance(when, timedelta):
            return cls(Kind.INTERVAL, interval_text(when), *_policy(timezone, gap, fold)).checked()
        if not isinstance(when, str):
            raise OptionInvalid(
                "when", when, "cron('0 9 * * MON-FRI'), a timedelta, or a text such as 'every 5 minutes'"
            )
        if when.lstrip()[:5].lower() == "every":
            text, zone = _zone_apart(when, timezone)
            if is_interval(text):
                when = interval_text(timedelta(microseconds=parse_interval(text)))
                return cls(Kind.INTERVAL, when, *_policy(zone, gap, fold)).checked()
            return cls(Kind.TEXT, text, *_policy(zone, gap, fold)).checked()
        return cls(Kind.CRON, when, *_policy(timezone, gap, fold)).checked()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """What `to_json` gave. Raises `ExpressionInvalid` for anything else."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ExpressionInvalid("", text, f"is not a stored recurrence: {error}", "the text of to_json") from error

    def to_json(self) -> str:
        """Portable JSON text, the same for equal values."""
        return msgspec.json.encode(self).decode()

    def checked(self) -> "Recurrence":
        """This one in its normal spelling. Raises `ExpressionInvalid` if it means nothing."""
        self._plan()
        return replace(self, expression=normal_cron(self.expression)) if self.kind is Kind.CRON else self

    def anchored(self, anchor_us: int) -> "Recurrence":
        """This one, counting from that instant if it is an interval without an anchor; else unchanged."""
        if self.kind is not Kind.INTERVAL or self.anchor_us is not None:
            return self
        return replace(self, anchor_us=anchor_us)

    def next_after(self, after_us: int) -> int | None:
        """The first tick later than that instant; None where there is none. Raises `ExpressionInvalid`."""
        return self.next_from(after_us + 1)

    def next_from(self, from_us: int) -> int | None:
        """The first tick at that instant or later."""
        if from_us > LAST_US:
            return None
        found = self._plan().at_or_after(max(from_us, FIRST_US))
        return found if found is not None and found <= LAST_US else None

    def last_until(self, until_us: int) -> int | None:
        """The last tick at that instant or earlier: of ticks missed, the latest."""
        if until_us < FIRST_US:
            return None
        found = self._plan().at_or_before(min(until_us, LAST_US))
        return found if found is not None and found >= FIRST_US else None

    def between(self, from_us: int, until_us: int) -> Iterator[int]:
        """Ticks at `from_us` or later and before `until_us`, in order, computed as they are taken."""
        tick_us = self.next_from(from_us)
        while tick_us is not None and tick_us < until_us:
            yield tick_us
            tick_us = self.next_from(tick_us + 1)

    def latest(self, after_us: int, until_us: int, count: int) -> list[int]:
        """The last `count` ticks later than `after_us` and not later than `until_us`, in order."""
        found: list[int] = []
        tick_us = self.last_until(until_us)
        while tick_us is not None and tick_us > after_us and len(found) < count:
            found.append(tick_us)
            tick_us = self.last_until(tick_us - 1)
        return found[::-1]

    def preview(self, after_us: int, count: int, *, inclusive: bool = False) -> list[Tick]:
        """The next `count` ticks after that instant, or from it on, with offsets and marks."""
        plan, ticks = self._plan(), list[Tick]()
        tick_us = self.next_from(after_us if inclusive else after_us + 1)
        while tick_us is not None and len(ticks) < count:
            ticks.append(Tick(tick_us, plan.zone.at(tick_us), plan.mark(tick_us)))
            tick_us = self.next_from(tick_us + 1)
        return ticks

    @property
    def interval_us(self) -> int | None:
        """The step of an interval; None of anything else."""
        return parse_interval(self.expression) if self.kind is Kind.INTERVAL else None

    @property
    def rule(self) -> Rule | None:
        """Days and times of day; None of an interval. Raises `ExpressionInvalid`."""
        plan = self._plan()
        return plan.rule if isinstance(plan, WallPlan) else None

    def dst(self) -> tuple[Gap, Fold]:
        """The gap and fold rule in force; an interval, being real time, has that of real time."""
        plan = self._plan()
        return (plan.gap, plan.fold) if isinstance(plan, WallPlan) else REAL_TIME

    def _plan(self) -> WallPlan | IntervalPlan:
        if self.kind is Kind.CRON:
            return cron_plan(self.expression, self.timezone, self.gap, self.fold)
        if self.kind is Kind.TEXT:
            return text_plan(self.expression, self.timezone, self.gap, self.fold)
        return IntervalPlan(parse_interval(self.expression), self.anchor_us or 0, find_zone(self.timezone))


def cron(
    expression: str,
    timezone: str = UTC_NAME,
    dst: str = "auto",
    *,
    gap: Gap | str | None = None,
    fold: Fold | str | None = None,
) -> Recurrence:
    """A cron expression of 5 fields, or 6 with seconds first, in the local time of a zone.

    `dst="auto"`: what recurs within the hour or names every hour keeps real time; any other time occurs once a day,
    in a gap at the first valid instant after it, in a repeated hour in the first pass. `gap` and `fold` override that.
    Raises `ExpressionInvalid`, also for what could never occur, and `OptionInvalid`.
    """
    if dst != "auto":
        raise OptionInvalid("dst", dst, "'auto'; gap='shift' or 'skip' and fold='first', 'last' or 'both' override it")
    if not isinstance(expression, str):
        raise OptionInvalid("cron", expression, "the text of a cron expression, such as '0 9 * * MON-FRI'")
    return Recurrence(Kind.CRON, expression, *_policy(timezone, gap, fold)).checked()


def _zone_apart(text: str, timezone: str | None) -> tuple[str, str | None]:
    """A text without its zone, and the zone that counts. Raises `ExpressionInvalid` where two are given."""
    split = split_text(text)
    if split.zone is None:
        return split.text, timezone
    if timezone is not None and timezone != split.zone:
        raise ExpressionInvalid(text, split.zone, f"is not timezone={timezone!r}", "one time zone", split.zone_start)
    find_zone(split.zone, text, split.zone_start)
    return split.text, split.zone


def _policy(
    timezone: str | None, gap: Gap | str | None, fold: Fold | str | None
) -> tuple[str, Gap | None, Fold | None]:
    if gap is not None and gap not in [*Gap]:
        raise OptionInvalid("gap", gap, "'shift' or 'skip', or nothing for the automatic rule")
    if fold is not None and fold not in [*Fold]:
        raise OptionInvalid("fold", fold, "'first', 'last' or 'both', or nothing for the automatic rule")
    name = UTC_NAME if timezone is None else timezone
    return name, None if gap is None else Gap(gap), None if fold is None else Fold(fold)
