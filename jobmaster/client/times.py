"""Between the times people write and the microseconds the system keeps. Naive datetimes are refused: they mean another
instant on every machine."""

from datetime import UTC, datetime, timedelta

from jobmaster.model.errors import LONGEST_DELAY, OptionInvalid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LATEST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The last instant a datetime can hold."""
_EARLIEST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def to_us(option: str, when: object) -> int:
    """An aware datetime as microseconds UTC. Raises `OptionInvalid`, saying how to make a naive one aware."""
    if not isinstance(when, datetime):
        raise OptionInvalid(option, when, "a datetime with a time zone, e.g. datetime.now(UTC) + timedelta(hours=1)")
    if when.utcoffset() is None:
        raise OptionInvalid(
            option,
            when,
            "a datetime with a time zone; add one: .replace(tzinfo=UTC) or tzinfo=ZoneInfo('Europe/Berlin')",
        )
    return min((when - _EPOCH) // _MICROSECOND, LATEST_US)


def from_us(us: int) -> datetime:
    """The instant, in UTC; the nearest a datetime can hold."""
    return _EPOCH + timedelta(microseconds=max(_EARLIEST_US, min(us, LATEST_US)))


def maybe_from_us(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def delay_us(option: str, delay: object, now_us: int) -> int:
    """A `timedelta` from now, not negative and not beyond the year 9999, in microseconds. Plain numbers are refused:
    they don't say of what."""
    if not isinstance(delay, timedelta):
        raise OptionInvalid(option, delay, "a timedelta, e.g. timedelta(minutes=5)")
    us = delay // _MICROSECOND
    if us < 0:
        raise OptionInvalid(option, delay, "a timedelta of zero or more; use once_now for at once")
    if now_us + us > LATEST_US:
        raise OptionInvalid(option, delay, "a delay that ends before the year 10000")
    return us


def duration_us(option: str, value: object, least: timedelta = _MICROSECOND) -> int:
    """A positive, finite duration, a `timedelta` or seconds, in microseconds."""
    expected = f"a timedelta or seconds, from {least.total_seconds():g} s to 36,525 days (100 years)"
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise OptionInvalid(option, value, expected)
    if isinstance(value, timedelta):
        length = value
    elif 0 < value <= LONGEST_DELAY.total_seconds():  # False for NaN, too
        length = timedelta(seconds=value)
    else:
        raise OptionInvalid(option, value, expected)
    if not least <= length <= LONGEST_DELAY:
        raise OptionInvalid(option, value, expected)
    return length // _MICROSECOND
