"""Many rows in one statement on Postgres: each column travels as one array, whatever the number of rows.

asyncpg asks of each element of an array whether it is an array itself, which takes longer than encoding it. So what
needs no quotes is sent as the text of an array and cast; and a column that is the same in every row is sent once.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.engine import Dialect

MOST = 2_000
"""Rows in a statement: each may carry a job's whole data."""

_PLAIN = frozenset({"bigint", "integer", "smallint", "uuid", "boolean"})
"""Types whose values need no quotes."""


class ArrayInsert:
    """INSERT into some columns of one table, with what happens to a key that exists."""

    def __init__(
        self, table: Table, columns: Sequence[str], key: Sequence[str], conflict: str, dialect: Dialect
    ) -> None:
        self._kinds = [kind_of(table, name, dialect) for name in columns]
        # Never shortened: the key, as the length of its arrays is the number of rows, and what may be NULL, since
        # shortened columns are filled up with NULL.
        self._fixed = [name in key or bool(table.c[name].nullable) for name in columns]
        arrays = [array_of(number, kind) for number, kind in enumerate(self._kinds, 1)]
        values = [
            f"u.{name}" if fixed else f"coalesce(u.{name}, ({array})[1])"
            for name, fixed, array in zip(columns, self._fixed, arrays, strict=True)
        ]
        # In the order of the key, as every write of several rows, so that two writers can't wait for each other.
        self.text = (
            f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {', '.join(values)} "
            f"FROM unnest({', '.join(arrays)}) AS u ({', '.join(columns)}) "
            f"ORDER BY {', '.join(f'u.{name}' for name in key)} {conflict}"
        )

    def run(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        for start in range(0, len(rows), MOST):
            connection.exec_driver_sql(self.text, self._given(rows[start : start + MOST]))

    def _given(self, rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
        columns = zip(*rows, strict=True)
        return tuple(
            sent(kind, fixed, [*column]) for kind, fixed, column in zip(self._kinds, self._fixed, columns, strict=True)
        )


def kind_of(table: Table, name: str, dialect: Dialect) -> str:
    """The type of a column's array elements."""
    words = table.c[name].type.compile(dialect).lower()
    kind = words.partition(" ")[0].partition("(")[0]
    return "text" if kind == "varchar" else kind


def array_of(number: int, kind: str) -> str:
    """SQL: a parameter as an array."""
    return f"${number}::text::{kind}[]" if kind in _PLAIN else f"${number}::{kind}[]"


def sent(kind: str, fixed: bool, column: list[Any]) -> Any:
    """The column as a parameter."""
    alike = column.count(column[0]) == len(column)
    if alike and column[0] is None:
        return None
    if alike and not fixed:
        column = column[:1]
    if kind not in _PLAIN:
        return column
    return f"{{{','.join('NULL' if value is None else str(value) for value in column)}}}"
