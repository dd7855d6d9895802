"""What steps add to tables that are there; nothing where an earlier try, cut short, has added it already."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op


def add_columns(table: str, *columns: sa.Column[Any]) -> None:
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
    for column in columns:
        if column.name not in known:
            op.add_column(table, column)


def add_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    if op.get_bind().dialect.name not in ("mysql", "mariadb"):
        op.create_index(name, table, [*columns], if_not_exists=True, **options)
    # MariaDB has those words, MySQL has not.
    elif name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, [*columns], **options)
