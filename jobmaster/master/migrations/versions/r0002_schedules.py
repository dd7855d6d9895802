"""Schedules with any recurrence, their terms, owners and occurrences; profiles, and terms of duties.

Additive: processes of the first revision go on reading and writing their columns beside those of this one.
"""

import sqlalchemy as sa
from alembic import context, op

from jobmaster.master.migrations.adding import add_columns, add_index
from jobmaster.master.sql import columns as c

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    prefix = context.config.attributes["prefix"]

    def index(name: str, on: str, *columns: str) -> None:
        add_index(prefix + name, prefix + on, columns)

    add_columns(
        prefix + "schedule",
        sa.Column("recurrence", c.text()),
        sa.Column("terms", c.Payload),
        sa.Column("profile", c.name()),
        sa.Column("status", c.name(16), nullable=False, server_default="active"),
        sa.Column("look_us", c.Micros, nullable=False, server_default="0"),
        sa.Column("last_job", c.Id),
        sa.Column("retire_us", c.Micros),
        sa.Column("version", c.Count, nullable=False, server_default="1"),
    )
    schedule = sa.table(prefix + "schedule", sa.column("state"), sa.column("status"))
    op.execute(sa.update(schedule).where(schedule.c.state != "active").values(status=schedule.c.state))
    index("schedule_look", "schedule", "status", "look_us")
    index("schedule_profile", "schedule", "profile")
    add_columns(
        prefix + "occurrence",
        sa.Column("state", c.name(16), nullable=False, server_default="planned"),
        sa.Column("note", c.name(16)),
        sa.Column("planned_us", c.Micros),
    )
    op.create_table(
        prefix + "profile",
        sa.Column("name", c.name(), primary_key=True),
        sa.Column("seen_us", c.Micros, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        prefix + "term",
        sa.Column("duty", c.name(), primary_key=True),
        sa.Column("holder", c.text(), nullable=False),
        sa.Column("number", c.Micros, nullable=False),
        sa.Column("until_us", c.Micros, nullable=False),
        if_not_exists=True,
    )
