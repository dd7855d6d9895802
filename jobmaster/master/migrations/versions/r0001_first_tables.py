"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from jobmaster.master.migrations.adding import add_index
from jobmaster.master.sql import columns as c

revision = "0001"
down_revision = None

LIVE = "'awaiting', 'dispatching', 'held', 'queued', 'running'"
ENDED = "'cancelled', 'failed', 'succeeded'"
REASONS = "'crashed', 'exhausted', 'expired', 'rejected', 'timed_out', 'undecodable', 'unknown_handler'"
OUTCOMES = "'cancelled', 'failed', 'interrupted', 'lapsed', 'retry_at', 'snoozed', 'succeeded'"
ID = "length(CAST(id AS CHAR(36))) = 36"
NUMBERS = "epoch >= 0 AND version >= 1 AND claim_seq >= 0"


def upgrade() -> None:
    prefix = context.config.attributes["prefix"]

    def table(name: str, *parts: Any, **options: Any) -> None:
        op.create_table(prefix + name, *parts, if_not_exists=True, **options)

    def check(name: str, condition: str) -> sa.CheckConstraint:
        return sa.CheckConstraint(condition, name=prefix + name)

    def index(name: str, on: str, *columns: str, where: str | None = None) -> None:
        rows: dict[str, Any] = (
            {} if where is None else {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}
        )
        add_index(prefix + name, prefix + on, columns, **rows)

    table(
        "job",
        *_job_columns(),
        sa.Column("dispatch_until_us", c.Micros),
        sa.Column("put_deadline_us", c.Micros),
        check("job_state", f"state IN ({LIVE})"),
        check("job_reason", "reason IS NULL AND finished_us IS NULL"),
        check("job_agent", "state <> 'dispatching' OR (agent IS NOT NULL AND dispatch_until_us IS NOT NULL)"),
        check("job_numbers", NUMBERS),
        check("job_id", ID),
    )
    index("job_due", "job", "state", "due_us", "id")
    index("job_dispatch", "job", "agent", "dispatch_until_us", where="state = 'dispatching'")
    index("job_group", "job", "lane", "state", "id")
    table(
        "history",
        *_job_columns(),
        check("history_state", f"(state = 'succeeded' OR state IN ({ENDED})) AND finished_us IS NOT NULL"),
        check("history_reason", "(state = 'failed') = (reason IS NOT NULL)"),
        check("history_reasons", f"reason IS NULL OR reason IN ({REASONS})"),
        check("history_numbers", NUMBERS),
        check("history_id", ID),
    )
    index("history_handler", "history", "handler", "id")
    index("history_group", "history", "state", "lane", "finished_us")
    index("history_unusual", "history", "state", "id", where="state <> 'succeeded'")
    table(
        "run",
        sa.Column("job_id", c.Id, primary_key=True, nullable=False, autoincrement=False),
        sa.Column("token", c.Micros, primary_key=True, nullable=False, autoincrement=False),
        sa.Column("attempt", c.Count, nullable=False),
        sa.Column("worker", c.text(), nullable=False),
        sa.Column("host", c.text(), nullable=False),
        sa.Column("started_us", c.Micros),
        sa.Column("finished_us", c.Micros, nullable=False),
        sa.Column("outcome", c.name(16), nullable=False),
        sa.Column("error", c.text()),
        sa.Column("detail", c.Payload),
        check("run_outcome", f"outcome = 'succeeded' OR outcome IN ({OUTCOMES})"),
        check("run_token", "token >= 0"),
        sqlite_with_rowid=False,
    )
    table(
        "definition",
        sa.Column("name", c.name(), primary_key=True),
        sa.Column("lane", c.name(48), nullable=False),
        sa.Column("priority", c.Small, nullable=False),
        sa.Column("policy", c.Payload, nullable=False),
        sa.Column("data_schema", c.Payload),
        sa.Column("agent", c.name(48)),
    )
    table(
        "agent",
        sa.Column("name", c.name(48), primary_key=True),
        sa.Column("kind", c.name(), nullable=False),
        sa.Column("fingerprint", c.text(), nullable=False),
        sa.Column("incarnation", c.name(), nullable=False),
        sa.Column("high_water", c.Micros, nullable=False),
    )
    table(
        "worker",
        sa.Column("id", c.Key, primary_key=True),
        sa.Column("agent", c.name(48), nullable=False),
        sa.Column("beat_us", c.Micros, nullable=False),
        sa.Column("card", c.Payload, nullable=False),
    )
    table(
        "schedule",
        sa.Column("key", c.Key, primary_key=True),
        sa.Column("handler", c.name(), nullable=False),
        sa.Column("interval_us", c.Micros, nullable=False),
        sa.Column("anchor_us", c.Micros, nullable=False),
        sa.Column("next_us", c.Micros, nullable=False),
        sa.Column("state", c.name(16), nullable=False),
        sa.Column("lane", c.name(48), nullable=False),
        sa.Column("priority", c.Small, nullable=False),
        sa.Column("agent", c.name(48)),
        sa.Column("data", c.Payload, nullable=False),
        sa.Column("policy", c.Payload, nullable=False),
        sa.Column("labels", c.Payload),
        sa.Column("created_us", c.Micros, nullable=False),
        check("schedule_state", "state IN ('active', 'ended', 'paused')"),
    )
    index("schedule_due", "schedule", "next_us", where="state = 'active'")
    table(
        "occurrence",
        sa.Column("schedule", c.Key, primary_key=True),
        sa.Column("tick_us", c.Micros, primary_key=True, autoincrement=False),
        sa.Column("job_id", c.Id, nullable=False),
        sqlite_with_rowid=False,
    )
    index("occurrence_tick", "occurrence", "tick_us")
    table(
        "quarantine",
        sa.Column("agent", c.name(48), primary_key=True),
        sa.Column("seq", c.Micros, primary_key=True, autoincrement=False),
        sa.Column("at_us", c.Micros, nullable=False),
        sa.Column("error", c.text(), nullable=False),
        sa.Column("raw", c.Payload, nullable=False),
    )
    table(
        "meta",
        sa.Column("name", c.name(), primary_key=True),
        sa.Column("value", c.text(), nullable=False),
    )


def _job_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", c.Id, primary_key=True, nullable=False, autoincrement=False),
        sa.Column("handler", c.name(), nullable=False),
        sa.Column("lane", c.name(48), nullable=False),
        sa.Column("priority", c.Small, nullable=False),
        sa.Column("state", c.name(16), nullable=False),
        sa.Column("reason", c.name(16)),
        sa.Column("epoch", c.Count, nullable=False),
        sa.Column("claim_seq", c.Micros, nullable=False),
        sa.Column("version", c.Micros, nullable=False),
        sa.Column("agent", c.name(48)),
        sa.Column("created_us", c.Micros, nullable=False),
        sa.Column("original_due_us", c.Micros, nullable=False),
        sa.Column("due_us", c.Micros, nullable=False),
        sa.Column("expires_us", c.Micros),
        sa.Column("first_started_us", c.Micros),
        sa.Column("finished_us", c.Micros),
        sa.Column("attempts", c.Count, nullable=False),
        sa.Column("snoozes", c.Count, nullable=False),
        sa.Column("interrupts", c.Count, nullable=False),
        sa.Column("crash_count", c.Count, nullable=False),
        sa.Column("suspect", c.Flag, nullable=False),
        sa.Column("schedule", c.Key),
        sa.Column("effects", c.Flag, nullable=False),
        sa.Column("worker", c.text()),
        sa.Column("started_us", c.Micros),
        sa.Column("progress", c.Small),
        sa.Column("progress_note", c.text()),
        sa.Column("data", c.Payload, nullable=False),
        sa.Column("policy", c.Payload, nullable=False),
        sa.Column("labels", c.Payload),
        sa.Column("result", c.Payload),
        sa.Column("error", c.text()),
    ]
