"""What cannot mean anything is refused at once, with the word that is at fault and what was expected."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobmaster.model.errors import ExpressionInvalid
from jobmaster.recurrence import Recurrence, cron
from jobmaster.recurrence.plan import PLANS_KEPT, _wall_plan
from jobmaster.recurrence.times import TABLES_KEPT, _tables
from jobmaster.recurrence.words import describe
from jobmaster.recurrence.zones import YEARS_KEPT, ZONES_KEPT, _zone, find_zone
from tests.sizes import SIZES

BAD_CRON = [
    ("0 0 31 2 *", "31", 4, "is no day of FEB: it would never happen; expected a day that FEB has, or L"),
    ("0 0 30,31 FEB *", "30,31", 4, "is no day of FEB"),
    ("0 0 31 2,4,6,9,11 *", "31", 4, "FEB, APR, JUN, SEP, NOV"),
    ("*/0 * * * *", "/0", 1, "a step of 0"),
    ("60 * * * *", "60", 0, "minutes from 0 to 59"),
    ("* 24 * * *", "24", 2, "hours from 0 to 23"),
    ("* * 0 * *", "0", 4, "days from 1 to 31"),
    ("* * * 13 *", "13", 6, "or JAN to DEC"),
    ("* * * * 8", "8", 8, "or SUN to SAT"),
    ("* * * * MON-FUN", "FUN", 12, "has no meaning"),
    ("60 * * * * *", "60", 0, "seconds from 0 to 59"),
    ("5-1 * * * *", "5-1", 0, "runs backwards; expected 5-59,0-1"),
    ("* 22-2 * * *", "22-2", 2, "expected 22-23,0-2"),
    ("* * * * 5-1", "5-1", 8, "expected 5-6,0-1"),
    ("1,,2 * * * *", "1,,2", 0, "an empty item"),
    (", * * * *", ",", 0, "an empty item"),
    ("1-2-3 * * * *", "1-2-3", 0, "has no meaning"),
    ("-5 * * * *", "-5", 0, "has no meaning"),
    ("1.5 * * * *", "1.5", 0, "has no meaning"),
    ("H * * * *", "H", 0, "has no meaning"),
    ("R * * * *", "R", 0, "has no meaning"),
    ("*5 * * * *", "*5", 0, "has no meaning"),
    ("5/ * * * *", "5/", 0, "has no meaning"),
    ("\u0665 * * * *", "\u0665", 0, "has no meaning"),
    ("0 0 L-3 * *", "L", 4, "has no meaning"),
    ("0 0 32W * *", "32", 4, "is out of range"),
    ("0 0 15W,20 * *", "15W", 4, "can't be in a list"),
    ("0 0 * * L", "L", 8, "has no meaning"),
    ("0 0 * * MON#6", "MON#6", 8, "MONL, MON#1"),
    ("0 0 * * MON#1,FRI", "FRI", 14, "can't be listed together with MON#1"),
    ("* * * *", "* * * *", 0, "has 4 fields; expected 5 fields"),
    ("* * * * * * *", "* * * * * * *", 0, "has 7 fields"),
    ("", "", 0, "has 0 fields"),
    ("   ", "   ", 0, "has 0 fields"),
    ("@reboot", "@reboot", 0, "one of @yearly"),
    ("@daily 5", "@daily 5", 0, "is no alias"),
    ("*\u00a0* * * *", "*\u00a0*", 0, "letters and digits of ASCII"),
    ("0 9 * * MO\ufb01", "MO\ufb01", 8, "letters and digits of ASCII"),
]

BAD_TEXT = [
    ("every", "every", 0, "ends too early"),
    ("everyday at 9:00", "everyday", 0, "'every', and then a blank"),
    ("every foo", "foo", 6, "a count and a unit"),
    ("every day at 9", "9", 13, "a time of day, such as 18:00"),
    ("every day at 24:00", "24:00", 13, "a time of day"),
    ("every day at 13pm", "13pm", 13, "a time of day"),
    ("every day at 9:00 and", "every day at 9:00 and", 0, "ends too early"),
    ("every day at 9:00 tomorrow", "tomorrow", 18, "the end, or 'in' and a time zone"),
    ("every weekday at 18:00 in Europe/Berln", "Europe/Berln", 26, "expected Europe/Berlin, perhaps"),
    ("every day at 9:00 in Nowhere", "Nowhere", 21, "is not a time zone"),
    ("every 0 minutes", "0 minutes", 6, "at least 1 second"),
    ("every 200 milliseconds", "200 milliseconds", 6, "at least 1 second"),
    ("every 99999999999999999999 weeks", "99999999999999999999 weeks", 6, "100 years"),
    ("every 5 fortnights", "fortnights", 8, "week, day, hour"),
    ("every 2 days at 9:00", "days", 8, "is too long a unit here"),
    ("every \u0665 minutes", "\u0665", 6, "a count and a unit"),
    ("every week", "every week", 0, "'every week on monday'"),
    ("every month at 9:00", "at", 12, "'every month on the 1st'"),
    ("every month on the 31th", "31th", 19, "an ordinal"),
    ("every 6th monday of the month", "6th", 6, "'first' to 'fifth'"),
    ("every second weekday of the month", "second", 6, "'first' or 'last' before weekday"),
    ("every 1st of the year", "year", 17, "'month'"),
    ("every year on february 30", "30", 23, "is no day of February"),
    ("every minute from 17:00 to 9:00", "9:00", 27, "can't pass midnight"),
    ("every 3 seconds on mondays", "3", 6, "more than 1,440 times"),
    ("every hour at :60", ":60", 14, "a minute of the hour"),
]

BAD_ZONES = [
    "Europe/Nowhere", "../../etc/localtime", "/etc/localtime", "europe/berlin", "", " UTC", "UTC ", "localtime",
    "posixrules", "right/UTC", "posix/UTC", "Europe", "Europe/", "a\x00b", "x" * 100_000, "tzdata.zi", "zone.tab",
]  # fmt: skip


def fault(text: str) -> ExpressionInvalid:
    with pytest.raises(ExpressionInvalid) as caught:
        Recurrence.of(text)
    return caught.value


@pytest.mark.parametrize(("text", "word", "start", "says"), BAD_CRON + BAD_TEXT)
def test_the_message_points_at_the_word(text: str, word: str, start: int, says: str) -> None:
    error = fault(text)
    assert (error.word, error.start) == (word, start)
    assert says in str(error)


@pytest.mark.parametrize("zone", BAD_ZONES)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ExpressionInvalid, match="is not a time zone") as caught:
        cron("0 9 * * *", zone)
    assert len(str(caught.value)) < 300


def test_two_zones_are_one_too_many() -> None:
    assert Recurrence.of("every day at 9:00 in Asia/Tokyo", "Asia/Tokyo").timezone == "Asia/Tokyo"
    with pytest.raises(ExpressionInvalid, match="is not timezone='UTC'"):
        Recurrence.of("every day at 9:00 in Asia/Tokyo", "UTC")


@pytest.mark.parametrize(
    "text",
    ["* " * 5_000, "1," * 5_000 + "1 * * * *", "*" * 10_000, "every " * 5_000, "every day at " + "9:00, " * 5_000],
    ids=lambda text: text[:12],
)
def test_ten_kilobytes_are_refused_unread(text: str) -> None:
    error = fault(text)
    assert "is too long" in str(error)
    assert len(str(error)) < 300


def test_every_value_of_every_field_may_be_listed() -> None:
    fields = [",".join(str(value) for value in range(low, high + 1)) for low, high in ((0, 59), (0, 59), (0, 23))]
    listed = cron(" ".join([*fields, "*", "*", "*"]))
    assert listed.next_after(0) == 1_000_000


pieces = st.sampled_from(
    [
        *"0123456789*?-,/#LW@ \t\n",
        " * ",
        "MON",
        "FRI",
        "JAN",
        "DEC",
        "*/",
        "60",
        "31",
        "99999999999",
        "H",
        "\u0665",
        "\x00",
    ]
)
WORDS = """every day weekday weekend monday fri to and , at 9:00 18:00:30 6pm noon on the 1st 31st first last of month
    year february 30 hour minute second seconds 5 0 999999999999999999 from between in UTC Europe/Berlin week :15"""
words = st.sampled_from([*WORDS.split(), "\u0665"])


@settings(max_examples=SIZES.examples * 10, deadline=None)
@given(st.one_of(st.lists(pieces, max_size=30).map("".join), st.lists(words, max_size=12).map(" ".join), st.text()))
@example("*,LW * * * *")
@example("0 0 LW,LW * *")
@example("0 0 LW,* * FRI")
def test_anything_is_understood_or_refused(text: str) -> None:
    try:
        recurrence = Recurrence.of(text)
    except ExpressionInvalid as error:
        refused = error
    else:
        tick_us = recurrence.next_after(0)
        assert tick_us is not None
        assert recurrence.last_until(tick_us) == recurrence.next_from(tick_us) == tick_us
        assert describe(recurrence)
        assert Recurrence.from_json(recurrence.to_json()) == recurrence
        assert Recurrence.of(recurrence.expression, recurrence.timezone) == recurrence
        return
    whole = refused.expression or refused.word
    assert isinstance(whole, str)
    assert whole[refused.start :].upper().startswith(str(refused.word).upper())
    assert str(refused)


def test_what_comes_up_once_in_forty_years_is_found() -> None:
    # Five Sundays in a February: 2032, 2060, 2088, 2128, as 2100 is no leap year.
    ticks = cron("0 0 * 2 SUN#5").preview(1_800_000_000_000_000, 4)
    assert [tick.at.year for tick in ticks] == [2032, 2060, 2088, 2128]


def test_memory_does_not_grow_with_the_number_of_expressions() -> None:
    """What is kept between questions is bounded, and an expression that is refused leaves nothing."""
    assert [cache.cache_info().maxsize for cache in (_wall_plan, _zone, _tables)] == [
        PLANS_KEPT,
        ZONES_KEPT,
        TABLES_KEPT,
    ]
    known = _wall_plan.cache_info().currsize
    for number in range(100):
        fault(f"{number} 25 * * *")
    assert _wall_plan.cache_info().currsize == known


def test_memory_does_not_grow_with_the_years_asked_about() -> None:
    berlin = cron("0 9 1 1 *", "Europe/Berlin")
    assert len(berlin.preview(0, 600)) == 600
    assert len(find_zone("Europe/Berlin")._changes) <= YEARS_KEPT
