"""What the databases say differently and SQLAlchemy does not say for us. The rest of the master asks here."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, bindparam, func, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import Boolean


class _Contains(FunctionElement[bool]):
    """Whether bytes occur in a column of bytes."""

    type = Boolean()
    inherit_cache = True
    name = "contains"


def contains(column: ColumnElement[Any], part: bytes) -> ColumnElement[bool]:
    """Whether the column's bytes contain these. No LIKE: nothing to escape, and no collation has a say."""
    return _Contains(column, bindparam(None, part, LargeBinary, unique=True))


def among(connection: Connection, column: ColumnElement[str], ids: Sequence[str]) -> ColumnElement[bool]:
    """Whether the column is one of the ids. On SQLite they travel as one value: a list of parameters would make the
    text another one for every count, written, parsed and planned anew."""
    if connection.dialect.name != "sqlite":
        return column.in_(ids)
    given = func.json_each(json.dumps(ids)).table_valued("value")
    return column.in_(select(given.c.value))


def among_given(connection: Connection, column: ColumnElement[str]) -> ColumnElement[bool]:
    """The same for a statement that is built once: the ids come with `ids_given` when it is executed."""
    if connection.dialect.name != "sqlite":
        return column.in_(bindparam("ids", expanding=True))
    given = func.json_each(bindparam("ids")).table_valued("value")
    return column.in_(select(given.c.value))


def ids_given(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    """The parameter of `among_given`."""
    return {"ids": json.dumps(ids) if connection.dialect.name == "sqlite" else ids}


@compiles(_Contains)
@compiles(_Contains, "sqlite")
def _instr(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    column, part = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(instr({column}, {part}) > 0)"


@compiles(_Contains, "mysql")
@compiles(_Contains, "mariadb")
def _locate(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    column, part = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(locate({part}, {column}) > 0)"


@compiles(_Contains, "postgresql")
def _position(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    column, part = (compiler.process(clause, **options) for clause in element.clauses)
    return f"(position({part} in {column}) > 0)"


NOW = {
    "postgresql": "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    "mysql": "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
    "mariadb": "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)",
}
"""The instant as it is now, not as it was when the transaction began."""


def server_now_us(connection: Connection) -> int:
    """The clock of a database server."""
    return int(connection.exec_driver_sql(NOW[connection.dialect.name]).scalar_one())


_MYSQL_VALUES = frozenset({1048, 1264, 1265, 1292, 1366, 1406, 1690, 3819, 4025})
"""NULL where none may be, out of range, cut, not of that character set, too long, against a CHECK."""

_DRIVER_WORDS = ("invalid input for query argument", "Error binding parameter")
"""What asyncpg and sqlite3 say, without any code, to a value that they can't even send."""


def blames_value(error: Exception) -> bool:
    """Whether the error is about a value that was to be written, and would be again: not about the connection, a
    lock, or a table that is not there."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, ValueError | TypeError | OverflowError)
    if error.connection_invalidated:
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state)[:2] in ("22", "23")
    number = next(iter(getattr(error.orig, "args", ())), None)
    return (
        isinstance(error, IntegrityError | DataError)
        or number in _MYSQL_VALUES
        or any(words in str(error.orig) for words in _DRIVER_WORDS)
    )
