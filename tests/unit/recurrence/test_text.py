"""Readable text: each form means what a cron expression or an interval says of it."""

from datetime import timedelta

import pytest

from jobmaster.recurrence import Kind, Recurrence, cron
from jobmaster.recurrence.textparse import split_text

START_US = 1_790_000_000_000_000

SAME_AS_CRON = [
    ("every second", "* * * * * *"),
    ("every minute", "* * * * *"),
    ("every hour", "0 * * * *"),
    ("every hour at :15 and :45", "15,45 * * * *"),
    ("every hour at minute 5", "5 * * * *"),
    ("every hour on sundays", "0 * * * SUN"),
    ("every minute on weekends", "* * * * SAT,SUN"),
    ("every day", "0 0 * * *"),
    ("every day at 9:00", "0 9 * * *"),
    ("EVERY  Day AT 09:00:30", "30 0 9 * * *"),
    ("every day at 9am and 9pm", "0 9,21 * * *"),
    ("every day at 9 am, noon, and midnight", "0 0,9,12 * * *"),
    ("every day at 12am and 12:30pm", "0 0 * * *;30 12 * * *"),
    ("every day at 9:00 and 17:30", "0 9 * * *;30 17 * * *"),
    ("every weekday at 18:00", "0 18 * * MON-FRI"),
    ("every weekend at 10:00", "0 10 * * SAT,SUN"),
    ("every weekend day at 10:00", "0 10 * * SAT,SUN"),
    ("every monday at 7:15", "15 7 * * MON"),
    ("every monday, wednesday and friday at 7:15", "15 7 * * MON,WED,FRI"),
    ("every tue, thurs at 7:15", "15 7 * * TUE,THU"),
    ("every monday to friday at 9:00", "0 9 * * MON-FRI"),
    ("every friday through monday at 9:00", "0 9 * * FRI-MON"),
    ("every week on monday and thursday at 6am", "0 6 * * MON,THU"),
    ("every 1st of the month", "0 0 1 * *"),
    ("every 1st and 15th of the month at 9:00", "0 9 1,15 * *"),
    ("every month on the 1st, 2nd, 3rd and 22nd at noon", "0 12 1,2,3,22 * *"),
    ("every last day of the month at 23:59", "59 23 L * *"),
    ("every month on the last day at 23:59", "59 23 L * *"),
    ("every last weekday of the month at noon", "0 12 LW * *"),
    ("every first weekday of the month at noon", "0 12 1W * *"),
    ("every first monday of the month at 8:00", "0 8 * * MON#1"),
    ("every second monday of the month at 8:00", "0 8 * * MON#2"),
    ("every first and third friday of the month at 8:00", "0 8 * * FRI#1,FRI#3"),
    ("every month on the 1st and last friday at 8:00", "0 8 * * FRI#1;0 8 * * FRIL"),
    ("every first and last day of the month", "0 0 1,L * *"),
    ("every last friday of the month at 17:00", "0 17 * * FRIL"),
    ("every month on the 1st day and the last friday at 8:00", "0 8 1 * FRIL"),
    ("every year on march 1 at 9:00", "0 9 1 3 *"),
    ("every year on 1st of march at 9:00", "0 9 1 3 *"),
    ("every year on december 25th", "0 0 25 12 *"),
    ("every year on 29 feb", "0 0 29 2 *"),
    ("every year on the last day of february", "0 0 L 2 *"),
    ("every 15 minutes from 09:00 to 17:45 on weekdays", "*/15 9-17 * * MON-FRI"),
    ("every 30 minutes between 9am and 10am", "0,30 9 * * *;0 10 * * *"),
    ("every hour from 9:00 to 17:00 on monday to friday", "0 9-17 * * MON-FRI"),
    ("every 20 minutes on sundays", "*/20 * * * SUN"),
]


def ticks(recurrence: Recurrence, count: int = 120) -> list[int]:
    return [tick.at_us for tick in recurrence.preview(START_US, count)]


@pytest.mark.parametrize(("text", "expressions"), SAME_AS_CRON)
def test_a_text_means_what_its_cron_expressions_mean(text: str, expressions: str) -> None:
    recurrence = Recurrence.of(text, "Europe/Berlin")
    wanted = {at for expression in expressions.split(";") for at in ticks(cron(expression, "Europe/Berlin"))}
    assert recurrence.kind is Kind.TEXT
    right = sorted(wanted)[:120]
    assert ticks(recurrence) == right
    assert recurrence.latest(START_US, right[-1], 120) == right
    assert Recurrence.from_json(recurrence.to_json()) == recurrence


def test_a_step_on_certain_days_counts_anew_each_day() -> None:
    sundays = Recurrence.of("every 7 minutes on sundays").preview(START_US, 206)
    assert (sundays[0].at.strftime("%a %H:%M"), sundays[1].at.strftime("%H:%M")) == ("Sun 00:00", "00:07")
    assert (sundays[205].at.strftime("%a %H:%M"), sundays[205].at - sundays[0].at) == (
        "Sun 23:55",
        timedelta(hours=23, minutes=55),
    )


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("every 5 minutes", timedelta(minutes=5)),
        ("every 1 minute", timedelta(minutes=1)),
        ("every 90 seconds", timedelta(seconds=90)),
        ("every 15min", timedelta(minutes=15)),
        ("every 2 h", timedelta(hours=2)),
        ("every 36 hrs", timedelta(hours=36)),
        ("every 10 days", timedelta(days=10)),
        ("every 2 weeks", timedelta(weeks=2)),
        ("every 1500 ms", timedelta(milliseconds=1500)),
    ],
)
def test_a_count_and_a_unit_make_an_interval(text: str, step: timedelta) -> None:
    assert Recurrence.of(text) == Recurrence.of(step)


def test_the_zone_stands_at_the_end() -> None:
    recurrence = Recurrence.of("Every weekday at 18:00 IN Europe/Berlin")
    assert (recurrence.expression, recurrence.timezone) == ("every weekday at 18:00", "Europe/Berlin")
    assert Recurrence.of("every 5 minutes in Asia/Tokyo").timezone == "Asia/Tokyo"
    assert split_text("every day").zone is None


def test_times_named_in_words_are_times_of_day_even_within_one_hour() -> None:
    # Each is one of a day: in the gap of 29 March both are moved to its end, and are one.
    twice = Recurrence.of("every day at 2:00 and 2:30 in Europe/Berlin").preview(1_774_738_800_000_000, 3)
    assert [tick.at.isoformat() for tick in twice] == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
