"""The names of one agent's tables, and how values get into statements fast."""

from collections.abc import Iterable, Sequence
from typing import Any

from jobmaster.contracts.namespace import table_prefix

READY, DELAYED, LEASED, PARKED = 0, 1, 2, 3
"""The `st` of a job row."""

NOTHING = "\0"
"""Bound in place of None; `nullable` turns it back. See `bound`."""


class Tables:
    """Table names of one agent, to be formatted into SQL: they are made of letters, digits and underscores only."""

    def __init__(self, cluster: str, agent: str) -> None:
        self.prefix = prefix = table_prefix(cluster, agent)
        self.job = f"{prefix}job"
        self.outbox = f"{prefix}outbox"
        self.tombstone = f"{prefix}tombstone"
        self.meta = f"{prefix}meta"
        self.lane = f"{prefix}lane"
        self.worker = f"{prefix}worker"
        self.signal = f"{prefix}signal"
        self.version = f"{prefix}version"


def bound(value: Any) -> Any:
    """The value in a form that sqlite3 binds quickly. Before Python binds anything but an exact int, float, str or
    bytearray it looks for an adapter, in vain: 800 ns for None, 1,000 ns for bytes, against 50 to 140 ns."""
    kind = type(value)
    if kind is str or kind is int:
        return value
    if value is None:
        return NOTHING
    if kind is bytes:
        return bytearray(value)
    # What is left is a StrEnum, a bool or an IntEnum.
    return str.__str__(value) if isinstance(value, str) else int(value)


def nullable(expression: str) -> str:
    """SQL for what was bound by `bound`, where it may be None."""
    return f"nullif({expression}, char(0))"


def marks(count: int) -> str:
    """Parameters for one row of values."""
    return f"({', '.join('?' * count)})"


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


SIZES = (500, 100, 20, 4, 1)
"""Rows per statement: few different texts, so that their compiled forms are kept."""


def chunks(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """The rows in pieces of the fixed sizes, largest first."""
    start = 0
    for size in SIZES:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
