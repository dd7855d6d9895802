"""`Recurrence`: made, stored, compared and asked."""

from datetime import UTC, datetime, timedelta

import pytest

from jobmaster.model.errors import ExpressionInvalid, OptionInvalid
from jobmaster.recurrence import Fold, Gap, Kind, Recurrence, cron


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


def shown(recurrence: Recurrence, after: str, count: int) -> list[str]:
    return [tick.at.isoformat() for tick in recurrence.preview(us(after), count)]


@pytest.mark.parametrize(
    "recurrence",
    [
        cron("0 9 * * mon-fri", "Europe/Berlin"),
        cron("30 2 * * *", "Europe/Berlin", gap="skip", fold="both"),
        cron(" @Daily "),
        Recurrence.of(timedelta(minutes=90)).anchored(us("2026-01-01T00:00:00+00:00")),
        Recurrence.of("every 5 minutes", "Asia/Tokyo"),
    ],
    ids=lambda recurrence: recurrence.expression,
)
def test_a_recurrence_comes_back_from_its_json(recurrence: Recurrence) -> None:
    assert Recurrence.from_json(recurrence.to_json()) == recurrence
    assert Recurrence.from_json(recurrence.to_json().encode()) == recurrence
    assert hash(Recurrence.from_json(recurrence.to_json())) == hash(recurrence)


def test_the_stored_form_is_this_one() -> None:
    stored = cron("0  9 * * mon-fri", "Europe/Berlin", gap="skip").to_json()
    assert stored == '{"kind":"cron","expression":"0 9 * * MON-FRI","timezone":"Europe/Berlin","gap":"skip"}'
    assert Recurrence.from_json(stored).gap is Gap.SKIP
    assert Recurrence.of(timedelta(hours=36)).to_json() == '{"kind":"interval","expression":"every 36 hours"}'


@pytest.mark.parametrize(
    "text", ["", "null", "[]", '{"kind":"cron"}', '{"kind":"moon","expression":"* * * * *"}', b"\xff"]
)
def test_what_is_no_stored_recurrence_is_refused(text: str | bytes) -> None:
    with pytest.raises(ExpressionInvalid, match="not a stored recurrence"):
        Recurrence.from_json(text)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ('{"kind":"cron","expression":"0 25 * * *"}', "'25' in the hour field"),
        ('{"kind":"cron","expression":"0 9 * * *","timezone":"Moon/Base"}', "'Moon/Base' is not a time zone"),
        ('{"kind":"text","expression":""}', "ends too early"),
        ('{"kind":"text","expression":"EVERY DAY"}', "'EVERY' is not understood"),
        ('{"kind":"interval","expression":""}', "is not a count and a unit"),
        ('{"kind":"interval","expression":"every 5 minutes","timezone":""}', "is not a time zone"),
    ],
)
def test_a_stored_expression_that_means_nothing_is_refused_when_asked(stored: str, says: str) -> None:
    with pytest.raises(ExpressionInvalid, match=says):
        Recurrence.from_json(stored).next_after(0)


def test_next_is_later_and_last_is_not_later() -> None:
    nine = cron("0 9 * * *")
    tick_us = us("2026-01-01T09:00:00+00:00")
    assert nine.next_after(tick_us - 1) == nine.next_from(tick_us) == nine.last_until(tick_us) == tick_us
    assert nine.next_after(tick_us) == us("2026-01-02T09:00:00+00:00")
    assert nine.last_until(tick_us - 1) == us("2025-12-31T09:00:00+00:00")


def test_a_range_includes_its_start_and_not_its_end() -> None:
    hourly = cron("0 * * * *")
    start, end = us("2026-01-01T00:00:00+00:00"), us("2026-01-01T03:00:00+00:00")
    assert [*hourly.between(start, end)] == [start + hour * 3_600_000_000 for hour in range(3)]
    assert hourly.latest(start, end, 2) == [end - 3_600_000_000, end]
    assert hourly.latest(start, end, 100) == [*hourly.between(start + 1, end + 1)]
    assert hourly.latest(end, start, 5) == []


def test_an_interval_counts_from_its_anchor_in_both_directions() -> None:
    anchor_us = us("2026-01-01T00:00:07+00:00") + 123
    every = Recurrence.of(timedelta(minutes=5)).anchored(anchor_us)
    assert every.next_after(anchor_us) == anchor_us + 300_000_000
    assert every.next_from(anchor_us) == every.last_until(anchor_us) == anchor_us
    assert every.last_until(anchor_us - 1) == anchor_us - 300_000_000
    assert every.anchored(5) == every
    assert cron("* * * * *").anchored(5).anchor_us is None


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (timedelta(seconds=1), "every 1 second"),
        (timedelta(minutes=90), "every 90 minutes"),
        (timedelta(days=14), "every 14 days"),
        (timedelta(seconds=1.5), "every 1500 milliseconds"),
        (timedelta(seconds=1, microseconds=1), "every 1000001 microseconds"),
    ],
)
def test_an_interval_reads_as_text_and_the_text_as_the_interval(step: timedelta, text: str) -> None:
    recurrence = Recurrence.of(step)
    assert recurrence == Recurrence.of(text)
    assert recurrence.expression == text
    assert recurrence.kind is Kind.INTERVAL
    assert recurrence.next_after(0) == step // timedelta(microseconds=1)


@pytest.mark.parametrize(
    "step", [timedelta(0), timedelta(seconds=-5), timedelta(milliseconds=999), timedelta(days=36_526)]
)
def test_an_interval_has_limits(step: timedelta) -> None:
    with pytest.raises(OptionInvalid, match="at least 1 second"):
        Recurrence.of(step)


@pytest.mark.parametrize("when", [5, None, 2.5, datetime(2026, 1, 1, tzinfo=UTC), b"* * * * *"])
def test_what_is_no_rule_at_all_is_refused(when: object) -> None:
    with pytest.raises(OptionInvalid, match="timedelta, or a text"):
        Recurrence.of(when)  # type: ignore[arg-type]  # wrong on purpose


def test_policies_are_checked() -> None:
    assert cron("30 2 * * *", gap=Gap.SKIP, fold=Fold.LAST) == cron("30 2 * * *", gap="skip", fold="last")
    for wrong in ({"gap": "first"}, {"fold": "none"}, {"dst": "real"}):
        with pytest.raises(OptionInvalid, match=f"{next(iter(wrong))}="):
            cron("30 2 * * *", **wrong)


EVER = [cron("0 0 * * *", "Pacific/Kiritimati"), cron("0 0 29 2 *", "Europe/Berlin"), cron("0 0 1 1 *", "America/Adak")]
EVER += [Recurrence.of("every 5 minutes", "Pacific/Kiritimati"), Recurrence.of("every day at noon in Europe/Berlin")]


@pytest.mark.parametrize("recurrence", EVER, ids=lambda recurrence: recurrence.expression)
def test_time_has_two_ends(recurrence: Recurrence) -> None:
    for last in (us("9996-12-31T00:00:00+00:00"), 2**63 - 1, 10**30):
        assert recurrence.next_after(last) is None
        assert recurrence.preview(last, 5) == []
        assert recurrence.last_until(last) is not None
    for first in (-(2**63), -(10**30)):
        assert recurrence.last_until(first) is None
        assert recurrence.preview(first, 2)[0].at.year < 9
        assert [*recurrence.between(first, first + 10)] == []
    # Walked to the end and back, in few steps.
    tick_us: int | None = us("9995-01-01T00:00:00+00:00")
    walked = 0
    while tick_us is not None and walked < 1_000:
        tick_us, walked = recurrence.next_after(tick_us), walked + 1


def test_a_time_in_a_gap_occurs_at_its_end() -> None:
    assert shown(cron("30 2 * * *", "Europe/Berlin"), "2026-03-28T00:00:00+00:00", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
