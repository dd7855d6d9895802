"""Durations and sizes as people write them: `15`, `"15 s"`, `"10min"`, a timedelta; `131072`, `"128 KiB"`.

Inside the settings a duration is a float of seconds and a size an int of bytes. A bool is neither.
"""

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field

_SECONDS: Mapping[str, float] = {"ms": 0.001, "s": 1, "min": 60, "m": 60, "h": 3_600, "d": 86_400}
_BYTES: Mapping[str, int] = {"b": 1, "kb": 1_000, "mb": 1_000_000, "kib": 1 << 10, "mib": 1 << 20}
_WITH_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", re.ASCII)
LONGEST_SECONDS = 36_525 * 86_400.0


def seconds_of(value: object) -> float:
    """Raises `ValueError` for what is no duration of 0 to 36,525 days."""
    seconds: float
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = _number(value, _SECONDS, 's", "500 ms", "10 min", "2 h" or "30 d')
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # Compared before it is converted: an int of a thousand digits does not fit a float.
        seconds = float(value) if -1 < value <= LONGEST_SECONDS else math.inf
    else:
        raise ValueError(f'expected a duration: seconds, or text such as "15 s"; got {type(value).__name__}')
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError("expected a duration of 0 to 36,525 days")
    return seconds


def bytes_of(value: object) -> int:
    """Raises `ValueError` for what is no size."""
    if isinstance(value, str):
        return round(_number(value, _BYTES, 'KiB", "2 MiB'))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f'expected a size: bytes, or text such as "128 KiB"; got {type(value).__name__}')


def _number(text: str, units: Mapping[str, float], examples: str) -> float:
    found = _WITH_UNIT.fullmatch(text) if len(text) <= 40 else None
    factor = units.get(found[2].lower(), None if found[2] else 1) if found else None
    if found is None or factor is None:
        raise ValueError(f'expected a number with a unit, such as "15 {examples}"')
    return float(found[1]) * factor


def count_of(value: object) -> object:
    """Lets pydantic turn digits into an int, but no bool."""
    if isinstance(value, bool):
        raise ValueError("expected a number, got a bool")
    return value


Duration = Annotated[float, BeforeValidator(seconds_of)]
"""Seconds, 0 allowed."""
PositiveDuration = Annotated[float, BeforeValidator(seconds_of), Field(gt=0)]
Size = Annotated[int, BeforeValidator(bytes_of), Field(ge=1)]
Count = Annotated[int, BeforeValidator(count_of)]
