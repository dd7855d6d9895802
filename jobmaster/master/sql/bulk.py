"""Many rows in few statements.

SQLAlchemy compiles `.values([...])` anew at every call, and `executemany` steps row by row, which on SQLite takes the
interpreter lock anew for each. So the text is written here, once for each of a few sizes, with placeholders. Postgres
takes whole columns instead; for MySQL the driver would write each value into the text, which takes it 4 us, so that is
done here, too.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError

from jobmaster.contracts.mysql_text import chunks, row
from jobmaster.master.sql.bulk_postgres import ArrayInsert

SIZES = (64, 8, 1)
"""Rows in a statement; any number of rows is cut into these."""


class BulkInsert:
    """INSERT into one table. A row whose key exists is left alone, or, if `guarded`, replaced by one with a greater
    (epoch, version); or, if `replacing`, always replaced."""

    def __init__(
        self,
        table: Table,
        columns: Sequence[str],
        key: Sequence[str],
        *,
        guarded: bool = False,
        replacing: bool = False,
    ) -> None:
        self._of = table
        self._table = table.name
        self._columns = tuple(columns)
        self._key = tuple(key)
        self._guarded = guarded
        self._replacing = replacing
        self._texts: dict[tuple[str, str, int], str] = {}
        self._arrays: ArrayInsert | None = None

    def run(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Insert them. How many were written is not told: MySQL counts a row that was left alone."""
        if connection.dialect.name == "postgresql":
            if self._arrays is None:
                conflict = self.conflict(connection.dialect)
                self._arrays = ArrayInsert(self._of, self._columns, self._key, conflict, connection.dialect)
            self._arrays.run(connection, rows)
            return
        if connection.dialect.name != "sqlite":
            self._write(connection, rows)
            return
        start = 0
        for size in SIZES:
            text = ""
            while len(rows) - start >= size:
                text = text or self.text(connection.dialect, size)
                parameters = tuple(chain.from_iterable(rows[start : start + size]))
                connection.exec_driver_sql(text, parameters)
                start += size

    def _write(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """MySQL's way: values are part of the text."""
        into, conflict = self._into(connection.dialect), self.conflict(connection.dialect)
        for some in chunks([row(*values) for values in rows]):
            text = b", ".join(some).decode("utf-8", "surrogateescape")
            try:
                connection.exec_driver_sql(f"{into} {text} {conflict}", execution_options={"no_parameters": True})
            except DBAPIError as error:
                # It would be told with the error, and all data of the jobs with it.
                error.statement = into
                raise

    def _into(self, dialect: Dialect) -> str:
        columns = ", ".join(map(dialect.identifier_preparer.quote, self._columns))
        return f"INSERT INTO {self._table} ({columns}) VALUES"

    def text(self, dialect: Dialect, size: int) -> str:
        """The statement for that many rows, with placeholders."""
        key = (dialect.name, dialect.paramstyle, size)
        if key not in self._texts:
            marks = placeholders(dialect.paramstyle, size, len(self._columns))
            self._texts[key] = f"{self._into(dialect)} {marks} {self.conflict(dialect)}"
        return self._texts[key]

    def conflict(self, dialect: Dialect) -> str:
        """The clause that says what happens to a key that exists."""
        # Some of our names are words of one database or another.
        quote = dialect.identifier_preparer.quote
        others = [quote(column) for column in self._columns if column not in self._key]
        if dialect.name in ("mysql", "mariadb"):
            return _on_duplicate_key(self._table, others, quote(self._key[0]), self._guarded, self._replacing)
        target = f"ON CONFLICT ({', '.join(map(quote, self._key))})"
        if not (self._guarded or self._replacing):
            return f"{target} DO NOTHING"
        changes = ", ".join(f"{column} = excluded.{column}" for column in others)
        update = f"{target} DO UPDATE SET {changes}"
        if self._replacing:
            return update
        t = self._table
        return f"{update} WHERE (excluded.epoch, excluded.version) > ({t}.epoch, {t}.version)"


def _on_duplicate_key(table: str, others: Sequence[str], key: str, guarded: bool, replacing: bool) -> str:
    """MySQL's clause has no WHERE, and assigns from left to right with the new values already seen: so the guard is
    repeated per column, and version and epoch come last. `INSERT IGNORE` would hide truncation and bad values too."""
    if replacing:
        changes = [f"{column} = VALUES({column})" for column in others]
    elif guarded:
        epoch, version = f"{table}.epoch", f"{table}.version"
        guard = f"VALUES(epoch) > {epoch} OR (VALUES(epoch) = {epoch} AND VALUES(version) > {version})"
        rest = [column for column in others if column not in ("epoch", "version")]
        changes = [
            f"{column} = IF({guard}, VALUES({column}), {table}.{column})" for column in (*rest, "version", "epoch")
        ]
    else:
        changes = [f"{key} = {table}.{key}"]
    return f"ON DUPLICATE KEY UPDATE {', '.join(changes)}"


def placeholders(paramstyle: str, rows: int, columns: int) -> str:
    """`(?, ?), (?, ?)` in the driver's own style."""
    if paramstyle == "numeric_dollar":
        groups = (range(row * columns + 1, (row + 1) * columns + 1) for row in range(rows))
        return ", ".join(f"({', '.join(f'${number}' for number in group)})" for group in groups)
    mark = {"qmark": "?", "format": "%s"}[paramstyle]
    return ", ".join([f"({', '.join([mark] * columns)})"] * rows)
