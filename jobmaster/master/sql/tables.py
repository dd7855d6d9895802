"""The master's tables, under one cluster's prefix.

`job` holds what is not terminal, `history` what is, `run` every execution. A job is in one of the first two: the
primary key of `history` is the id alone, so that a job can't end twice. On Postgres `history` and `run` are
partitioned by that id (`master.parts`).

The indexes are few on purpose, since a standalone cluster writes every job into `history` on its hot path. Two of full
size there: (handler, id) pages the jobs of a handler; (state, lane, finished_us) serves the counts, which stop at a
cap, and pruning, group by group. The third covers what ended badly and is rare. Every other question (lane, agent,
schedule, tag, metadata) walks the primary key, newest first, over a bounded number of rows a call.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CheckConstraint, Column, Index, MetaData, Table, text
from sqlalchemy.types import TypeEngine

from jobmaster.contracts.entries import AgentState
from jobmaster.contracts.scheduling import ScheduleState, TickState
from jobmaster.master.sql import columns as c
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import TERMINAL, FailReason, JobState

JOB_TYPES: dict[str, tuple[TypeEngine[Any], bool]] = {
    "id": (c.Id, False),
    "handler": (c.name(), False),
    "lane": (c.name(48), False),
    "priority": (c.Small, False),
    "state": (c.name(16), False),
    "reason": (c.name(16), True),
    "epoch": (c.Count, False),
    "claim_seq": (c.Micros, False),
    "version": (c.Micros, False),
    "agent": (c.name(48), True),
    "created_us": (c.Micros, False),
    "original_due_us": (c.Micros, False),
    "due_us": (c.Micros, False),
    "expires_us": (c.Micros, True),
    "first_started_us": (c.Micros, True),
    "finished_us": (c.Micros, True),
    "attempts": (c.Count, False),
    "snoozes": (c.Count, False),
    "interrupts": (c.Count, False),
    "crash_count": (c.Count, False),
    "suspect": (c.Flag, False),
    "schedule": (c.Key, True),
    "effects": (c.Flag, False),
    "worker": (c.text(), True),
    "started_us": (c.Micros, True),
    "progress": (c.Small, True),
    "progress_note": (c.text(), True),
    "data": (c.Payload, False),
    "policy": (c.Payload, False),
    "labels": (c.Payload, True),
    "result": (c.Payload, True),
    "error": (c.text(), True),
}
"""Type, and whether it may be NULL."""

RUN_TYPES: dict[str, tuple[TypeEngine[Any], bool]] = {
    "job_id": (c.Id, False),
    "token": (c.Micros, False),
    "attempt": (c.Count, False),
    "worker": (c.text(), False),
    "host": (c.text(), False),
    "started_us": (c.Micros, True),
    "finished_us": (c.Micros, False),
    "outcome": (c.name(16), False),
    "error": (c.text(), True),
    "detail": (c.Payload, True),
}

_NUMBERS = "epoch >= 0 AND version >= 1 AND claim_seq >= 0"
_ID = "length(CAST(id AS CHAR(36))) = 36"
"""The cast is for Postgres, where it is no text."""

assert tuple(JOB_TYPES) == JOB_FIELDS
assert tuple(RUN_TYPES) == RUN_FIELDS


@dataclass(frozen=True)
class Tables:
    """One cluster's tables."""

    prefix: str
    metadata: MetaData
    job: Table
    history: Table
    run: Table
    definition: Table
    agent: Table
    worker: Table
    event: Table
    schedule: Table
    occurrence: Table
    profile: Table
    term: Table
    operation: Table
    quarantine: Table
    meta: Table


def build_tables(prefix: str) -> Tables:
    """The tables whose names begin with that prefix, in a MetaData of their own."""
    metadata = MetaData()

    def table(name: str, *parts: Any, **options: Any) -> Table:
        return Table(prefix + name, metadata, *parts, **options)

    def check(name: str, condition: str) -> CheckConstraint:
        return CheckConstraint(condition, name=prefix + name)

    def index(name: str, *columns: str, where: str | None = None) -> Index:
        # MySQL has no partial indexes and takes the whole column instead.
        rows: dict[str, Any] = {} if where is None else {"sqlite_where": text(where), "postgresql_where": text(where)}
        return Index(prefix + name, *columns, **rows)

    return Tables(
        prefix=prefix,
        metadata=metadata,
        job=table(
            "job",
            *_columns(JOB_TYPES, key=("id",)),
            Column("dispatch_until_us", c.Micros),
            Column("put_deadline_us", c.Micros),
            check("job_state", f"state IN ({_quoted(set(JobState) - TERMINAL)})"),
            check("job_reason", "reason IS NULL AND finished_us IS NULL"),
            check("job_agent", "state <> 'dispatching' OR (agent IS NOT NULL AND dispatch_until_us IS NOT NULL)"),
            check("job_numbers", _NUMBERS),
            check("job_id", _ID),
            index("job_due", "state", "due_us", "id"),
            index("job_dispatch", "agent", "dispatch_until_us", where="state = 'dispatching'"),
            index("job_group", "lane", "state", "id"),
        ),
        history=table(
            "history",
            *_columns(JOB_TYPES, key=("id",)),
            # A list of texts costs SQLite 1 us a row to check: the commonest value stands before it.
            check(
                "history_state", f"(state = 'succeeded' OR state IN ({_quoted(TERMINAL)})) AND finished_us IS NOT NULL"
            ),
            check("history_reason", "(state = 'failed') = (reason IS NOT NULL)"),
            check("history_reasons", f"reason IS NULL OR reason IN ({_quoted(FailReason)})"),
            check("history_numbers", _NUMBERS),
            check("history_id", _ID),
            index("history_handler", "handler", "id"),
            index("history_group", "state", "lane", "finished_us"),
            index("history_unusual", "state", "id", where="state <> 'succeeded'"),
        ),
        run=table(
            "run",
            *_columns(RUN_TYPES, key=("job_id", "token")),
            check("run_outcome", f"outcome = 'succeeded' OR outcome IN ({_quoted(RunOutcome)})"),
            check("run_token", "token >= 0"),
            sqlite_with_rowid=False,
        ),
        definition=table(
            "definition",
            Column("name", c.name(), primary_key=True),
            Column("lane", c.name(48), nullable=False),
            Column("priority", c.Small, nullable=False),
            Column("policy", c.Payload, nullable=False),
            Column("data_schema", c.Payload),
            Column("agent", c.name(48)),
        ),
        agent=table(
            "agent",
            Column("name", c.name(48), primary_key=True),
            Column("kind", c.name(), nullable=False),
            Column("fingerprint", c.text(), nullable=False),
            Column("incarnation", c.name(), nullable=False),
            Column("high_water", c.Micros, nullable=False),
            Column("state", c.name(16), nullable=False, server_default=AgentState.OPEN.value),
            Column("target", c.name(48)),
        ),
        worker=table(
            "worker",
            Column("id", c.Key, primary_key=True),
            Column("agent", c.name(48), nullable=False),
            Column("beat_us", c.Micros, nullable=False),
            Column("card", c.Payload, nullable=False),
        ),
        event=table(
            "event",
            Column("id", c.Id, primary_key=True),
            Column("at_us", c.Micros, nullable=False),
            Column("kind", c.name(), nullable=False),
            Column("subject", c.Key, nullable=False),
            Column("who", c.text(), nullable=False),
            Column("detail", c.Payload),
            index("event_subject", "subject", "id"),
        ),
        schedule=table(
            "schedule",
            Column("key", c.Key, primary_key=True),
            Column("handler", c.name(), nullable=False),
            Column("interval_us", c.Micros, nullable=False),
            Column("anchor_us", c.Micros, nullable=False),
            Column("next_us", c.Micros, nullable=False),
            Column("state", c.name(16), nullable=False),
            Column("lane", c.name(48), nullable=False),
            Column("priority", c.Small, nullable=False),
            Column("agent", c.name(48)),
            Column("data", c.Payload, nullable=False),
            Column("policy", c.Payload, nullable=False),
            Column("labels", c.Payload),
            Column("created_us", c.Micros, nullable=False),
            # Of the second revision. A process of the first reads `state`, and plans what is active by its interval:
            # for what it can't know `state` says paused, and the truth is in `status`.
            Column("recurrence", c.text()),
            Column("terms", c.Payload),
            Column("profile", c.name()),
            Column("status", c.name(16), nullable=False, server_default=ScheduleState.ACTIVE.value),
            Column("look_us", c.Micros, nullable=False, server_default="0"),
            Column("last_job", c.Id),
            Column("retire_us", c.Micros),
            Column("version", c.Count, nullable=False, server_default="1"),
            check("schedule_state", f"state IN ({_quoted(ScheduleState)})"),
            index("schedule_due", "next_us", where="state = 'active'"),
            index("schedule_look", "status", "look_us"),
            index("schedule_profile", "profile"),
        ),
        occurrence=table(
            "occurrence",
            Column("schedule", c.Key, primary_key=True),
            Column("tick_us", c.Micros, primary_key=True, autoincrement=False),
            Column("job_id", c.Id, nullable=False),
            Column("state", c.name(16), nullable=False, server_default=TickState.PLANNED.value),
            Column("note", c.name(16)),
            Column("planned_us", c.Micros),
            index("occurrence_tick", "tick_us"),
            sqlite_with_rowid=False,
        ),
        profile=table(
            "profile",
            Column("name", c.name(), primary_key=True),
            Column("seen_us", c.Micros, nullable=False),
        ),
        term=table(
            "term",
            Column("duty", c.name(), primary_key=True),
            Column("holder", c.text(), nullable=False),
            Column("number", c.Micros, nullable=False),
            Column("until_us", c.Micros, nullable=False),
        ),
        operation=table(
            "operation",
            Column("id", c.Id, primary_key=True),
            Column("state", c.name(16), nullable=False),
            Column("node", c.text(), nullable=False),
            Column("until_us", c.Micros, nullable=False),
            Column("finished_us", c.Micros),
            Column("entry", c.Payload, nullable=False),
            index("operation_running", "state", "until_us"),
        ),
        quarantine=table(
            "quarantine",
            Column("agent", c.name(48), primary_key=True),
            Column("seq", c.Micros, primary_key=True, autoincrement=False),
            Column("at_us", c.Micros, nullable=False),
            Column("error", c.text(), nullable=False),
            Column("raw", c.Payload, nullable=False),
        ),
        meta=table(
            "meta",
            Column("name", c.name(), primary_key=True),
            Column("value", c.text(), nullable=False),
        ),
    )


def _columns(types: dict[str, tuple[TypeEngine[Any], bool]], key: tuple[str, ...]) -> Iterable[Column[Any]]:
    for name, (kind, nullable) in types.items():
        yield Column(name, kind, primary_key=name in key, nullable=nullable, autoincrement=False)


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))
