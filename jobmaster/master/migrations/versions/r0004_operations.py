"""What operators asked for."""

import sqlalchemy as sa
from alembic import context, op

from jobmaster.master.migrations.adding import add_index
from jobmaster.master.sql import columns as c

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    prefix = context.config.attributes["prefix"]
    op.create_table(
        prefix + "operation",
        sa.Column("id", c.Id, primary_key=True),
        sa.Column("state", c.name(16), nullable=False),
        sa.Column("node", c.text(), nullable=False),
        sa.Column("until_us", c.Micros, nullable=False),
        sa.Column("finished_us", c.Micros),
        sa.Column("entry", c.Payload, nullable=False),
        if_not_exists=True,
    )
    add_index(prefix + "operation_running", prefix + "operation", ["state", "until_us"])
