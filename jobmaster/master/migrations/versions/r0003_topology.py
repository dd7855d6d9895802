"""What operators decided about agents, and what happened to the topology. Additive."""

import sqlalchemy as sa
from alembic import context, op

from jobmaster.master.migrations.adding import add_columns, add_index
from jobmaster.master.sql import columns as c

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    prefix = context.config.attributes["prefix"]
    add_columns(
        prefix + "agent",
        sa.Column("state", c.name(16), nullable=False, server_default="open"),
        sa.Column("target", c.name(48)),
    )
    op.create_table(
        prefix + "event",
        sa.Column("id", c.Id, primary_key=True),
        sa.Column("at_us", c.Micros, nullable=False),
        sa.Column("kind", c.name(), nullable=False),
        sa.Column("subject", c.Key, nullable=False),
        sa.Column("who", c.text(), nullable=False),
        sa.Column("detail", c.Payload),
        if_not_exists=True,
    )
    add_index(prefix + "event_subject", prefix + "event", ["subject", "id"])
