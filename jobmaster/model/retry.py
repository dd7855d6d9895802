"""How long a failed job waits before its next attempt, and which errors are worth another one.

Full jitter (a uniform draw between zero and the backoff) is the default, because it spreads a herd of jobs that failed
together better than any part of the delay that is fixed: see Marc Brooker, "Exponential Backoff And Jitter", and
"Timeouts, retries and backoff with jitter" in the Amazon Builders' Library.

Exception types are stored by qualified name, since a policy travels with its job to processes that may not have the
class; they are compared with the names along the raised exception's MRO, and nothing is ever imported from them.
"""

import builtins
import math
import random
import re
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Self, assert_never

from msgspec import Struct

from jobmaster.model.errors import LONGEST_DELAY, OptionInvalid

MICROSECOND = timedelta(microseconds=1)
DEFAULT_BASE = timedelta(seconds=5)
DEFAULT_CAP = timedelta(hours=1)
DEFAULT_ATTEMPTS = 4
MOST_ATTEMPTS = 100_000
LARGEST_FACTOR = 1_000.0
LONGEST_US = LONGEST_DELAY // MICROSECOND

_TYPE_NAME = re.compile(r"[^\W\d]\w*(\.([^\W\d]\w*|<locals>))+")

ErrorTypes = type[BaseException] | str | Iterable[type[BaseException] | str]


class Backoff(StrEnum):
    """How the delay grows with the attempts."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class Jitter(StrEnum):
    """How the delay is spread."""

    FULL = "full"
    NONE = "none"


class Retry(Struct, frozen=True, omit_defaults=True):
    """A retry policy. Attempts count from 1, so `max_attempts` 4 means the first run and three retries.

    A value that has no meaning raises `OptionInvalid`, whether it came from code or from a store.
    """

    kind: Backoff = Backoff.EXPONENTIAL
    base_us: int = DEFAULT_BASE // MICROSECOND
    factor: float = 2.0
    cap_us: int = DEFAULT_CAP // MICROSECOND
    """No delay is longer."""
    jitter: Jitter = Jitter.FULL
    max_attempts: int = DEFAULT_ATTEMPTS
    on: tuple[str, ...] = ()
    """Retry only these types and their subclasses; empty: every type."""
    never_on: tuple[str, ...] = ()
    """Fail at once on these and their subclasses; stronger than `on`."""

    def __post_init__(self) -> None:
        _whole("max_attempts", self.max_attempts, 1, MOST_ATTEMPTS)
        _whole("base_us", self.base_us, 0, LONGEST_US)
        _whole("cap_us", self.cap_us, 0, LONGEST_US)
        if self.base_us > self.cap_us:
            raise OptionInvalid("base_us", self.base_us, f"at most cap_us, which is {self.cap_us}; raise the cap")
        if isinstance(self.factor, bool) or not isinstance(self.factor, (int, float)):
            raise OptionInvalid("factor", self.factor, "a number")
        if not 1.0 <= self.factor <= LARGEST_FACTOR:
            raise OptionInvalid("factor", self.factor, f"a number from 1 to {LARGEST_FACTOR:g}")
        for option, names in (("on", self.on), ("never_on", self.never_on)):
            for name in names:
                if not isinstance(name, str) or not _TYPE_NAME.fullmatch(name):
                    raise OptionInvalid(option, name, "exception classes, or names such as 'builtins.ValueError'")

    @classmethod
    def exponential(
        cls,
        base: timedelta | float = DEFAULT_BASE,
        *,
        factor: float = 2.0,
        cap: timedelta | float | None = None,
        jitter: Jitter | str = Jitter.FULL,
        max_attempts: int = DEFAULT_ATTEMPTS,
        on: ErrorTypes = (),
        never_on: ErrorTypes = (),
    ) -> Self:
        """Wait up to base, base·factor, base·factor², …; durations are timedeltas or seconds."""
        return cls._of(Backoff.EXPONENTIAL, base, cap, jitter, max_attempts, on, never_on, factor)

    @classmethod
    def linear(
        cls,
        base: timedelta | float = DEFAULT_BASE,
        *,
        cap: timedelta | float | None = None,
        jitter: Jitter | str = Jitter.FULL,
        max_attempts: int = DEFAULT_ATTEMPTS,
        on: ErrorTypes = (),
        never_on: ErrorTypes = (),
    ) -> Self:
        """Wait up to base, 2·base, 3·base, …; durations are timedeltas or seconds."""
        return cls._of(Backoff.LINEAR, base, cap, jitter, max_attempts, on, never_on)

    @classmethod
    def fixed(
        cls,
        delay: timedelta | float = DEFAULT_BASE,
        *,
        jitter: Jitter | str = Jitter.FULL,
        max_attempts: int = DEFAULT_ATTEMPTS,
        on: ErrorTypes = (),
        never_on: ErrorTypes = (),
    ) -> Self:
        """Wait up to the same delay every time; `jitter="none"` waits exactly that."""
        return cls._of(Backoff.FIXED, delay, None, jitter, max_attempts, on, never_on)

    @classmethod
    def never(cls) -> Self:
        """One attempt, no retries."""
        return cls(max_attempts=1)

    @classmethod
    def _of(
        cls,
        kind: Backoff,
        base: timedelta | float,
        cap: timedelta | float | None,
        jitter: Jitter | str,
        max_attempts: int,
        on: ErrorTypes,
        never_on: ErrorTypes,
        factor: float = 2.0,
    ) -> Self:
        base_us = _microseconds("delay" if kind is Backoff.FIXED else "base", base)
        # A base above the default cap is taken at its word: cutting two hours to one silently would be a lie.
        cap_us = max(DEFAULT_CAP // MICROSECOND, base_us) if cap is None else _microseconds("cap", cap)
        if jitter not in set(Jitter):
            raise OptionInvalid("jitter", jitter, "'full' or 'none'")
        return cls(
            kind=kind,
            base_us=base_us,
            factor=factor,
            cap_us=cap_us,
            jitter=Jitter(jitter),
            max_attempts=max_attempts,
            on=_type_names("on", on),
            never_on=_type_names("never_on", never_on),
        )

    def delay_us(self, attempt: int, rng: random.Random) -> int:
        """The wait after failed attempt number `attempt` (from 1), in µs: 0 to `cap_us`, for any attempt number."""
        ceiling = self.ceiling_us(attempt)
        return rng.randint(0, ceiling) if self.jitter is Jitter.FULL else ceiling

    def ceiling_us(self, attempt: int) -> int:
        """The longest wait `delay_us` can draw."""
        return int(min(self.cap_us, self._growth(max(attempt, 1)) * self.base_us)) if self.base_us else 0

    def retries(self, error: BaseException) -> bool:
        """Whether an error of this type is worth another attempt; says nothing about how many are left."""
        if not self.on and not self.never_on:
            return True
        names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
        if not names.isdisjoint(self.never_on):
            return False
        return not self.on or not names.isdisjoint(self.on)

    def _growth(self, attempt: int) -> float:
        match self.kind:
            case Backoff.FIXED:
                return 1
            case Backoff.LINEAR:
                return attempt
            case Backoff.EXPONENTIAL:
                try:
                    return float(self.factor) ** (attempt - 1)
                except OverflowError:
                    return math.inf
            case _:
                assert_never(self.kind)


def _whole(option: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionInvalid(option, value, f"a whole number from {low:,} to {high:,}")


def _microseconds(option: str, value: object) -> int:
    if isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST_DELAY:
        return value // MICROSECOND
    # NaN fails every comparison, so it falls through with the rest.
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST_US / 1_000_000:
        return round(value * 1_000_000)
    raise OptionInvalid(option, value, "a timedelta or seconds, from 0 to 36,525 days (100 years)")


def _type_names(option: str, types: ErrorTypes) -> tuple[str, ...]:
    expected = "exception classes, or names such as 'builtins.ValueError', in a list or tuple"
    if isinstance(types, (str, type)):
        types = (types,)
    if not isinstance(types, Iterable):
        raise OptionInvalid(option, types, expected)
    names = []
    for item in types:
        if isinstance(item, type) and issubclass(item, BaseException):
            names.append(f"{item.__module__}.{item.__qualname__}")
        elif isinstance(item, str):
            names.append(f"builtins.{item}" if "." not in item and hasattr(builtins, item) else item)
        else:
            raise OptionInvalid(option, item, expected)
    return tuple(names)
