"""A job as a row: which columns it has, how it comes back, and the packed form in which a claim fetches hundreds.

Python's sqlite3 gives up the interpreter lock at every row it steps to, and takes up to a switch interval (5 ms) to get
it back while another thread is busy. So a claim comes back as one row: a JSON array made by SQLite, with the payloads
embedded as they are. Payloads are JSON too, but nobody has checked that here: each is preceded by its length, and an
item is believed only if the payload that the decoder cut out has that length. What is not believed is read again row by
row. (An item starts where the one before it was believed to end, so by induction nothing a payload holds can pass for
another field.)
"""

import sqlite3
from typing import Any

import msgspec
from msgspec import Raw, Struct

from jobmaster.model.job import JOB_FIELDS, Job
from jobmaster.model.states import JobState
from jobmaster_agents.sqlite.tables import LEASED

DERIVED = frozenset({"state", "reason", "agent", "finished_us", "result"})
"""Job fields that have no column, since a job here is neither terminal nor anybody else's."""

COLUMNS = tuple(field for field in JOB_FIELDS if field not in DERIVED)
NULLABLE = frozenset(
    {"expires_us", "first_started_us", "schedule", "worker", "started_us", "progress", "progress_note"}
    | {"labels", "error", "reason", "agent", "finished_us", "result"}
)
_OWN = ("st", "seq", "leased_until_us", "last_token", "last_digest", "first_data")
SELECTED = ", ".join((*COLUMNS, *_OWN))


class Row:
    """A job with what only its store knows of it."""

    __slots__ = ("first_data", "job", "last_digest", "last_token", "leased_until_us", "seq", "st", "stood")

    def __init__(self, agent: str, values: tuple[Any, ...]) -> None:
        fields = dict(zip(COLUMNS, values, strict=False))
        fields["suspect"] = bool(fields["suspect"])
        fields["effects"] = bool(fields["effects"])
        self.st, self.seq, self.leased_until_us, self.last_token, self.last_digest, self.first_data = values[
            len(COLUMNS) :
        ]
        state = JobState.RUNNING if self.st == LEASED else JobState.QUEUED
        self.job = Job(state=state, agent=agent, **fields)
        self.stood = (self.job.lane, self.st)
        """Where it was counted when it was read."""


def select(connection: sqlite3.Connection, agent: str, table: str, where: str, *parameters: Any) -> list[Row]:
    """The rows that meet a condition, which may end in ORDER BY and LIMIT."""
    found = connection.execute(f"SELECT {SELECTED} FROM {table} {where}", parameters)
    return [Row(agent, values) for values in found]


class _Packed(Struct, array_like=True, gc=False):
    id: str
    lane: str
    priority: int
    handler: str
    epoch: int
    claim_seq: int
    version: int
    created_us: int
    original_due_us: int
    due_us: int
    size: int
    data: Raw
    policy_size: int = 2
    policy: Raw = Raw(b"{}")
    labels_size: int | None = None
    labels: Raw = Raw(b"")
    rest: tuple[Any, ...] | None = None


_REST = (
    *("expires_us", "first_started_us", "attempts", "snoozes", "interrupts", "crash_count", "suspect", "schedule"),
    *("effects", "progress", "progress_note", "error"),
)
# Most jobs have nothing in these, and rendering and reading a dozen nulls and zeros costs as much as all the rest.
_BARE = (
    "expires_us IS NULL AND first_started_us IS NULL AND schedule IS NULL AND error IS NULL"
    " AND progress IS NULL AND progress_note IS NULL"
    " AND attempts + snoozes + interrupts + crash_count + suspect + effects = 0"
)
PACKED = (
    # Ends with a number, so that only the bracket is trimmed. json_array is quicker than printf, and quotes.
    "rtrim(json_array(id, lane, priority, handler, epoch, claim_seq + 1, version + 1, created_us, original_due_us,"
    " due_us, length(data)), ']') || ',' || data"
    f" || CASE WHEN policy = x'7b7d' AND labels IS NULL AND {_BARE} THEN ']'"
    " ELSE ',' || length(policy) || ',' || policy || ',' || ifnull(length(labels), 'null') || ','"
    f" || ifnull(labels, 'null') || ',' || json_array({', '.join(_REST)}) || ']' END"
)
"""SQL: the row as `unpack` reads it once claimed, with `claim_seq` and `version` up by one."""

_decoder = msgspec.json.Decoder(list[_Packed])


def unpack(raw: bytes, agent: str, worker: str) -> list[Job] | None:
    """The claimed jobs of a packed array; None if it can't be believed."""
    try:
        packed = _decoder.decode(raw)
    except ValueError:
        return None
    jobs: list[Job] = []
    running = JobState.RUNNING
    for item in packed:
        data = bytes(item.data)
        if len(data) != item.size:
            return None
        more = _BARE_FIELDS if item.rest is None else _more(item)
        if more is None:
            return None
        jobs.append(
            Job(
                id=item.id,
                handler=item.handler,
                lane=item.lane,
                priority=item.priority,
                state=running,
                epoch=item.epoch,
                claim_seq=item.claim_seq,
                version=item.version,
                agent=agent,
                created_us=item.created_us,
                original_due_us=item.original_due_us,
                due_us=item.due_us,
                worker=worker,
                data=data,
                **more,
            )
        )
    return jobs


_BARE_FIELDS: dict[str, Any] = {}


def _more(item: _Packed) -> dict[str, Any] | None:
    """The fields that most jobs leave at their defaults; None if they can't be believed."""
    policy = bytes(item.policy)
    labels = None if item.labels_size is None else bytes(item.labels)
    if len(policy) != item.policy_size or (labels is not None and len(labels) != item.labels_size):
        return None
    fields: dict[str, Any] = dict(zip(_REST, item.rest or (), strict=True))
    fields["suspect"] = bool(fields["suspect"])
    fields["effects"] = bool(fields["effects"])
    return fields | {"policy": policy, "labels": labels}
