"""Cron expressions mean here what they mean to croniter and cronsim, in zones without changes of offset, except where
this says why not; and always what the sample was made to mean."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim, CronSimError

from jobmaster.model.errors import ExpressionInvalid
from jobmaster.recurrence import cron
from jobmaster.recurrence.zones import to_us
from tests.sizes import SIZES
from tests.unit.recurrence.randomcron import Sample, sample

ZONES = ("UTC", "Asia/Kolkata", "Asia/Tokyo", "Etc/GMT+9", "Asia/Kathmandu")
COUNT = 4

CRONITER_DIFFERS = {
    "LW": "it does not know LW",
    "a-a": "it reads 5-5 as every value",
    "both days, one of them full": "it makes * of a full list, though only beside a star",
    "*/1 day": "it takes */1 for a restriction, so that every day matches where the other day field is restricted",
}
CRONITER_DIFFERS_WITH_BOTH = {
    "W": "it joins 15W and a weekday with and, not with or",
    "nth": "it joins MON#1 and a day of the month with and, not with or",
}
CRONSIM_DIFFERS = {
    "W": "it does not know 15W",
    "wrap": "it refuses FRI-MON",
    "a-a": "it reads 5-5/2 as 5/2",
    "step of weekdays": "it lets 1/2 run on to 7, which is Sunday",
    "both days, one with a star": "it joins */2 and a weekday with and, as Debian's cron does",
}


def explained(made: Sample, differs: dict[str, str], with_both: dict[str, str]) -> bool:
    both = "both days" in made.traits
    return bool(made.traits & set(differs)) or (both and bool(made.traits & set(with_both)))


def spelled(made: Sample, last: str) -> str:
    """With the last weekday of the month as another spells it."""
    weekdays = made.fields[-1]
    text = last.format(min(weekdays.values)) if weekdays.special == "last" else weekdays.text
    return " ".join([*(field.text for field in made.fields[:-1]), text])


def by_croniter(made: Sample, start: datetime) -> list[datetime] | None:
    walk = croniter(spelled(made, "L{}"), start, second_at_beginning=True, max_years_between_matches=9)
    try:
        return [walk.get_next(datetime) for _ in range(COUNT)]
    except CroniterBadDateError:
        return None


def by_cronsim(made: Sample, start: datetime) -> list[datetime] | None:
    try:
        walk = CronSim(spelled(made, "{}L").replace("?", "*"), start)
        return [next(walk) for _ in range(COUNT)]
    except (CronSimError, StopIteration):
        return None


def refused_as_impossible(text: str) -> bool:
    try:
        cron(text)
    except ExpressionInvalid as error:
        return "it would never happen" in str(error)
    return False


@pytest.mark.timeout(900)
def test_random_expressions_mean_what_they_were_made_to_mean() -> None:
    random = Random(20_260_329)
    seen = Counter[str]()
    for _ in range(SIZES.cron_expressions):
        made = sample(random)
        zone = ZoneInfo(random.choice(ZONES))
        start = datetime(2000, 1, 1, tzinfo=UTC).astimezone(zone) + timedelta(seconds=random.randrange(10**9))
        right = made.after(start, COUNT)
        if not right and refused_as_impossible(made.text):
            seen["never"] += 1
            continue
        recurrence = cron(made.text, zone.key)
        ticks = recurrence.preview(to_us(start), COUNT)
        got = [tick.at for tick in ticks]
        assert got[: len(right)] == right, (made.text, start, right, got)
        assert [tick.mark for tick in ticks] == [None] * COUNT
        if len(right) < COUNT:
            continue
        last_us = to_us(right[-1])
        assert recurrence.latest(to_us(start), last_us, COUNT) == [*recurrence.between(to_us(start) + 1, last_us + 1)]
        for name, ask, differs, with_both in (
            ("croniter", by_croniter, CRONITER_DIFFERS, CRONITER_DIFFERS_WITH_BOTH),
            ("cronsim", by_cronsim, CRONSIM_DIFFERS, {}),
        ):
            if explained(made, differs, with_both):
                seen[f"{name} differs"] += 1
            else:
                assert ask(made, start) == right, (name, made.text, start)
                seen[name] += 1
    # Most are comparable: what is explained away must not become everything.
    assert seen["croniter"] > 0.6 * SIZES.cron_expressions, seen
    assert seen["cronsim"] > 0.5 * SIZES.cron_expressions, seen


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 1W * *", ["2026-08-03", "2026-09-01", "2026-10-01", "2026-11-02", "2026-12-01"]),
        ("0 0 31W * *", ["2026-07-31", "2026-08-31", "2026-09-30", "2026-10-30", "2026-11-30"]),
        ("0 0 LW * *", ["2026-07-31", "2026-08-31", "2026-09-30", "2026-10-30", "2026-11-30"]),
        ("0 0 15W * *", ["2026-07-15", "2026-08-14", "2026-09-15", "2026-10-15", "2026-11-16"]),
        ("0 0 15W,LW * *", ["2026-07-15", "2026-07-31", "2026-08-14", "2026-08-31", "2026-09-15"]),
        ("0 0 * * 7/2", ["2026-07-05", "2026-07-12", "2026-07-19"]),
        ("0 0 * * 5-7", ["2026-07-03", "2026-07-04", "2026-07-05", "2026-07-10"]),
        ("0 0 * * SAT-SUN", ["2026-07-04", "2026-07-05", "2026-07-11"]),
        ("0 0 1 NOV-FEB/2 *", ["2026-11-01", "2027-01-01", "2027-11-01"]),
        ("0 0 *,LW * *", ["2026-07-02", "2026-07-03"]),
        ("0 0 5-5 * *", ["2026-07-05", "2026-08-05"]),
    ],
)
def test_days_at_the_edges(expression: str, days: list[str]) -> None:
    start = to_us(datetime(2026, 7, 1, tzinfo=UTC))
    assert [f"{tick.at:%Y-%m-%d}" for tick in cron(expression).preview(start, len(days))] == days
