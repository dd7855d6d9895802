"""A recurrence made ready to be asked: parsed once, kept for the next question."""

from collections.abc import Callable
from functools import lru_cache

from jobmaster.recurrence.cronparse import parse_cron
from jobmaster.recurrence.interval import Interval
from jobmaster.recurrence.policy import REAL_TIME, TIME_OF_DAY, Fold, Gap, Mark
from jobmaster.recurrence.resolve import Resolver, pass_of
from jobmaster.recurrence.textparse import parse_text
from jobmaster.recurrence.wallclock import Rule, WallClock
from jobmaster.recurrence.zones import Zone, find_zone

PLANS_KEPT = 16_384
"""About 3.5 KB each. To understand an expression costs 200 times as much as to ask it."""
SECOND_US = 1_000_000


class WallPlan:
    """Occurrences by the clock on the wall, as instants in microseconds."""

    __slots__ = ("_resolver", "fold", "gap", "rule", "zone")

    def __init__(self, rule: Rule, zone: Zone, gap: Gap | None, fold: Fold | None) -> None:
        auto_gap, auto_fold = REAL_TIME if rule.real_time else TIME_OF_DAY
        self.rule = rule
        self.zone = zone
        self.gap, self.fold = gap or auto_gap, fold or auto_fold
        self._resolver = Resolver(WallClock(rule), zone, self.gap, self.fold)

    def at_or_after(self, instant_us: int) -> int | None:
        """The first one that is not before that instant."""
        found = self._resolver.at_or_after(-(-instant_us // SECOND_US))
        return None if found is None else found * SECOND_US

    def at_or_before(self, instant_us: int) -> int | None:
        """The last one that is not after that instant."""
        found = self._resolver.at_or_before(instant_us // SECOND_US)
        return None if found is None else found * SECOND_US

    def mark(self, instant_us: int) -> Mark | None:
        """What a change of offset did to an occurrence at that instant."""
        return self._resolver.mark(instant_us // SECOND_US)


class IntervalPlan(Interval):
    """Occurrences in real time."""

    __slots__ = ("zone",)

    def __init__(self, step_us: int, anchor_us: int, zone: Zone) -> None:
        super().__init__(step_us, anchor_us)
        self.zone = zone

    def mark(self, instant_us: int) -> Mark | None:
        """Which pass of a repeated hour it falls into; no gap ever moves it."""
        instant = instant_us // SECOND_US
        stretch = self.zone.stretch(instant)
        return pass_of(stretch, instant + stretch.offset)


def cron_plan(expression: str, timezone: str, gap: Gap | None, fold: Fold | None) -> WallPlan:
    """The plan of a cron expression. Raises `ExpressionInvalid`."""
    return _wall_plan(parse_cron, expression, timezone, gap, fold)


def text_plan(expression: str, timezone: str, gap: Gap | None, fold: Fold | None) -> WallPlan:
    """The plan of a readable text. Raises `ExpressionInvalid`."""
    return _wall_plan(parse_text, expression, timezone, gap, fold)


@lru_cache(maxsize=PLANS_KEPT)
def _wall_plan(
    parse: Callable[[str], Rule], expression: str, timezone: str, gap: Gap | None, fold: Fold | None
) -> WallPlan:
    return WallPlan(parse(expression), find_zone(timezone), gap, fold)
