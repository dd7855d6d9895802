"""An expression in plain words."""

from random import Random

import pytest

from jobmaster.recurrence import Recurrence, cron
from jobmaster.recurrence.words import describe, describe_dst
from tests.sizes import SIZES
from tests.unit.recurrence.randomcron import sample
from tests.unit.recurrence.test_cron_peers import refused_as_impossible

CRON_WORDS = [
    ("* * * * *", "every minute, in UTC"),
    ("* * * * * *", "every second, in UTC"),
    ("*/5 * * * *", "every 5 minutes, in UTC"),
    ("*/10 * * * * *", "every 10 seconds, in UTC"),
    ("0 * * * *", "every hour, on the hour, in UTC"),
    ("15 * * * *", "at minute 15 of every hour, in UTC"),
    ("7,19 * * * *", "at minutes 7 and 19 of every hour, in UTC"),
    ("*/7 * * * *", "at minutes 0 to 56 in steps of 7 of every hour, in UTC"),
    ("30 * * * * *", "at second 30 of every minute, in UTC"),
    ("0,30 */5 * * * *", "every 30 seconds of every 5th minute, in UTC"),
    ("* 5 * * * *", "every second of minute 5 of every hour, in UTC"),
    ("* 0 * * *", "every minute, from 00:00 to 00:59, every day, in UTC"),
    ("@daily", "at 00:00, every day, in UTC"),
    ("0 9 * * MON-FRI", "at 09:00, Monday to Friday, in UTC"),
    ("0 9 * * *", "at 09:00, every day, in UTC"),
    ("15 0 9 * * *", "at 09:00:15, every day, in UTC"),
    ("0 */2 * * *", "every 2 hours from 00:00 to 22:00, every day, in UTC"),
    ("30 */2 * * *", "at minute 30 of hours 0 to 22 in steps of 2, every day, in UTC"),
    ("*/15 9-17 * * MON-FRI", "every 15 minutes, from 09:00 to 17:59, Monday to Friday, in UTC"),
    ("*/15 9,10,14 * * *", "every 15 minutes, from 09:00 to 10:59 and from 14:00 to 14:59, every day, in UTC"),
    ("* * * * SAT,SUN", "every minute, on Saturday and Sunday, in UTC"),
    ("0 0 1,15 * *", "at 00:00, on the 1st and 15th of the month, in UTC"),
    ("0 0 13 * FRI", "at 00:00, on the 13th of the month or on Friday, in UTC"),
    ("0 0 L 1-3,6 *", "at 00:00, on the last day of the month, in January to March and June, in UTC"),
    ("0 0 LW * *", "at 00:00, on the last weekday (Monday to Friday) of the month, in UTC"),
    ("0 0 15W * *", "at 00:00, on the weekday (Monday to Friday) nearest to the 15th of the month, in UTC"),
    ("0 0 * * SUNL", "at 00:00, on the last Sunday of the month, in UTC"),
    ("0 0 * * SUN#1,TUE#3", "at 00:00, on the first Sunday and the third Tuesday of the month, in UTC"),
    ("0 0 29 2 *", "at 00:00, on the 29th of the month, in February, in UTC"),
]

TEXT_WORDS = [
    ("every 5 minutes", "every 5 minutes, in real time"),
    ("every day at 9:00, 12:00 and 17:30", "at 09:00, 12:00 and 17:30, every day, in UTC"),
    (
        "every 15 minutes from 9:00 to 17:00 on weekdays",
        "every 15 minutes from 09:00 to 17:00, Monday to Friday, in UTC",
    ),
    ("every last friday of the month", "at 00:00, on the last Friday of the month, in UTC"),
]


@pytest.mark.parametrize(("expression", "words"), CRON_WORDS + TEXT_WORDS)
def test_the_words_of_an_expression(expression: str, words: str) -> None:
    assert describe(Recurrence.of(expression)) == words


def test_the_zone_is_named() -> None:
    assert describe(cron("0 9 * * *", "Europe/Berlin")) == "at 09:00, every day, in Europe/Berlin"


def test_the_words_of_a_rule_for_changes_of_the_clocks() -> None:
    gap, twice = "a local time that the clocks leave out", "one that comes twice"
    assert describe_dst(cron("0 9 * * *")) == f"{gap}: at the first instant after it; {twice}: the first time"
    assert describe_dst(cron("0 * * * *")) == f"{gap}: not; {twice}: both times"
    assert describe_dst(cron("0 9 * * *", gap="skip", fold="last")) == f"{gap}: not; {twice}: the second time"
    assert describe_dst(Recurrence.of("every 5 minutes")) == "goes on in real time"


def test_different_rules_have_different_words() -> None:
    random = Random(4)
    told: dict[str, object] = {}
    for _ in range(SIZES.cron_expressions):
        made = sample(random)
        if refused_as_impossible(made.text):
            continue
        recurrence = cron(made.text)
        words = describe(recurrence)
        rule = recurrence.rule
        assert rule is not None
        means = (rule.days, *(getattr(rule.times, name) for name in ("hours", "minutes", "seconds")))
        assert told.setdefault(words, means) == means, words
