"""The names of one agent's tables, and the pieces of SQL that several statements share."""

from collections.abc import Iterable
from typing import Any

from jobmaster.contracts.namespace import table_prefix

READY, DELAYED, LEASED, PARKED = 0, 1, 2, 3
"""The `st` of a job row."""

NOW_US = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""Store time. Not `now()`, which stands still in a transaction."""

CLOCK = f"clock AS MATERIALIZED (SELECT {NOW_US} AS now_us)"
"""A part of WITH: store time, read once for a statement, however many rows it writes."""

IS_LEASED = f"(j.st + 0) = {LEASED}"
"""Written so that no index on `st` fits: the planner's statistics know no leased rows, and with `st = 2` it would look
for a batch of jobs in the index of leased ones, dead entries and all."""

FENCE = "(j.epoch << 32 | j.claim_seq)"

COUNTS = ("ready", "delayed", "leased", "parked")
"""The columns of counts, in the order of `st`."""


class Tables:
    """Names of one agent's tables, to be formatted into SQL: they are made of letters, digits and underscores only."""

    def __init__(self, cluster: str, agent: str) -> None:
        self.prefix = prefix = table_prefix(cluster, agent)
        self.job = f"{prefix}job"
        self.outbox = f"{prefix}outbox"
        self.outbox_seq = f"{prefix}outbox_seq"
        self.tombstone = f"{prefix}tombstone"
        self.meta = f"{prefix}meta"
        self.lane = f"{prefix}lane"
        self.count = f"{prefix}count"
        self.worker = f"{prefix}worker"
        self.signal = f"{prefix}signal"
        self.place = f"{prefix}place"
        """A sequence. Each number is the first of `PLACES` places in line."""
        self.put = f"{prefix}put"
        """The function behind the verb `put`."""
        self.put_one = f"{prefix}put_one"
        """The same for one job."""
        self.version = f"{prefix}version"


def literal(values: Iterable[object]) -> str:
    """Values that need no quotes, as one text that is cast to an array. asyncpg asks of each element of an array
    whether it is an array itself, which takes longer than all the rest."""
    return f"{{{','.join(map(str, values))}}}"


def numbers(values: list[int]) -> str:
    """Whole numbers, none of them None, as a `literal`; only one where they are all the same: see `each`."""
    return literal(same(values))


def same(values: list[Any]) -> list[Any]:
    """The values of a column that is never NULL, or only one where they are all the same: see `each`."""
    return values[:1] if values.count(values[0]) == len(values) else values


def each(column: str, array: str) -> str:
    """SQL: a column unnested from that array. Where the array had one value for all, the others were filled up with
    NULL. Read out by a SELECT of its own, that value is read once, and not for every row."""
    return f"coalesce({column}, (SELECT ({array})[1]))"


PLACES = 1 << 20
"""Places in line that one number of the sequence stands for; no put, promotion or flush is larger."""


def new_places(tables: Tables) -> str:
    """SQL: the first of `PLACES` places behind everybody's."""
    return f"nextval('{tables.place}')"
