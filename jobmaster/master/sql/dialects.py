"""What the databases say differently and SQLAlchemy does not say for us. The rest of the master asks here."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, bindparam
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
