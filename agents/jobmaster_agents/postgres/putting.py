"""put: jobs into the store, in one call of a function that lives beside the tables.

Its text and parameters are made apart from sending them, so that any connection can do it, also one whose transaction
is the caller's: see `statement`.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from jobmaster.contracts.values import PutAnswer
from jobmaster.model.job import Job
from jobmaster.telemetry.probes import probe
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import literal, numbers, same

ALWAYS = {
    "id": "uuid",
    "handler": "text",
    "lane": "text",
    "priority": "smallint",
    "epoch": "bigint",
    "claim_seq": "bigint",
    "version": "bigint",
    "created_us": "bigint",
    "original_due_us": "bigint",
    "due_us": "bigint",
    "policy": "bytea",
    "data": "bytea",
}
"""What every job brings, in the order of the function's parameters."""

SELDOM: dict[str, tuple[str, Any]] = {
    "expires_us": ("bigint", None),
    "first_started_us": ("bigint", None),
    "attempts": ("integer", 0),
    "snoozes": ("integer", 0),
    "interrupts": ("integer", 0),
    "crash_count": ("integer", 0),
    "suspect": ("boolean", False),
    "effects": ("boolean", False),
    "progress": ("smallint", None),
    "started_us": ("bigint", None),
    "worker": ("text", None),
    "schedule": ("text", None),
    "progress_note": ("text", None),
    "error": ("text", None),
    "labels": ("bytea", None),
}
"""What few jobs bring, with its type and what the others leave it at: sent as NULL if no job of a batch does."""

_NUMBERS = frozenset({"smallint", "integer", "bigint"})
_AS_TEXT = frozenset({*_NUMBERS, "uuid"})
_ALWAYS = [(kind, attrgetter(name)) for name, kind in ALWAYS.items()]
_ALL = attrgetter(*ALWAYS)
_SELDOM = attrgetter(*SELDOM)
_NONE_OF_THEM = tuple(default for _, default in SELDOM.values())


class Putting:
    """The verb `put` on one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        types = ["integer", *ALWAYS.values(), *(kind for kind, _ in SELDOM.values())]
        arrays = ", ".join(_array(number, kind, number - 3 <= len(ALWAYS)) for number, kind in enumerate(types, 3))
        self._text = f"SELECT {store.tables.put}($1::text, $2::bigint, {arrays})"
        scalars = ", ".join(f"${number}::{kind}" for number, kind in enumerate(ALWAYS.values(), 3))
        self._one = f"SELECT {store.tables.put_one}($1::text, $2::bigint, {scalars})"

    def statement(self, jobs: Sequence[Job], deadline_us: int) -> tuple[str, list[Any], list[int]]:
        """What stores these jobs in whatever transaction it is run, READ COMMITTED: the text, with `$1` and so on as
        placeholders, its values, and the number of the job that each answer is for."""
        order = list(range(len(jobs)))
        if len(jobs) > 1:
            # All writers lock in order of id; mostly it is the order they come in.
            order.sort(key=[job.id for job in jobs].__getitem__)
        ordered = [jobs[at] for at in order]
        values: list[Any] = [self._store.incarnation, deadline_us, literal(order)]
        for kind, get in _ALWAYS:
            column = list(map(get, ordered))
            values.append(_sent(kind, column))
        rest = list(map(_SELDOM, ordered))
        if rest.count(_NONE_OF_THEM) == len(rest):
            values += [None] * len(_NONE_OF_THEM)
        else:
            values += [
                None if column.count(default) == len(column) else list(column)
                for column, default in zip(zip(*rest, strict=True), _NONE_OF_THEM, strict=True)
            ]
        return self._text, values, order

    async def put(self, jobs: Sequence[Job], deadline_us: int) -> list[PutAnswer]:
        """In a transaction of its own."""
        if not jobs:
            return []
        if len(jobs) == 1 and await self._put_one(jobs[0], deadline_us):
            return [PutAnswer.STORED]
        text, values, order = self.statement(jobs, deadline_us)
        [[said]] = await self._store.database.fetch(
            text, *values, before_commit="enqueue.before_commit", after_commit="enqueue.after_commit"
        )
        return answers(said, order)

    async def _put_one(self, job: Job, deadline_us: int) -> bool:
        """Whether it was stored just now, at half the price; else nothing was done."""
        if _SELDOM(job) != _NONE_OF_THEM:
            return False
        [[stored]] = await self._store.database.fetch(
            self._one,
            self._store.incarnation,
            deadline_us,
            *_ALL(job),
            before_commit="enqueue.before_commit",
            after_commit="enqueue.after_commit",
        )
        return bool(stored)


def _sent(kind: str, column: list[Any]) -> Any:
    """A column that is never NULL as a parameter."""
    if kind in _NUMBERS:
        return numbers(column)
    return literal(column) if kind == "uuid" else same(column)


def _array(number: int, kind: str, always: bool) -> str:
    return f"${number}::text::{kind}[]" if always and kind in _AS_TEXT else f"${number}::{kind}[]"


def answers(said: Sequence[str] | None, order: Sequence[int]) -> list[PutAnswer]:
    """What the function said, for the jobs in the order they were given."""
    if said is None:
        return [PutAnswer.STORED] * len(order)
    given = [PutAnswer.STORED] * len(order)
    for at, word in zip(order, said, strict=True):
        given[at] = PutAnswer(word)
    duplicates = given.count(PutAnswer.DUPLICATE)
    if duplicates:
        probe("duplicate_put", duplicates)
    return given
