"""What the databases say differently and SQLAlchemy does not say for us. The rest of the master asks here."""

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from sqlalchemy import (
    BindParameter,
    Cast,
    ColumnElement,
    Connection,
    LargeBinary,
    Text,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import Boolean

from jobmaster.model.errors import Refused

_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDS = re.compile(rf"\{{{_ID.pattern}(?:,{_ID.pattern})*\}}")


class _Contains(FunctionElement[bool]):
    """Whether bytes occur in a column of bytes."""

    type = Boolean()
    inherit_cache = True
    name = "contains"


def contains(column: ColumnElement[Any], part: bytes) -> ColumnElement[bool]:
    """Whether the column's bytes contain these. No LIKE: nothing to escape, and no collation has a say."""
    return _Contains(column, bindparam(None, part, LargeBinary, unique=True))


def among(connection: Connection, column: ColumnElement[str], ids: Sequence[str]) -> ColumnElement[bool]:
    """Whether the column is one of the ids. They travel as one value where the database can take them apart: a list of
    parameters would make the text another one for every count, written, parsed and planned anew."""
    if connection.dialect.name == "postgresql":
        return column == any_(_uuids(bindparam(None, _literal(ids), Text, unique=True)))
    if connection.dialect.name != "sqlite":
        return column.in_(ids)
    given = func.json_each(json.dumps(ids)).table_valued("value")
    return column.in_(select(given.c.value))


def among_given(connection: Connection, column: ColumnElement[str]) -> ColumnElement[bool]:
    """The same for a statement that is built once: the ids come with `ids_given` when it is executed."""
    if connection.dialect.name == "postgresql":
        return column == any_(_uuids(bindparam("ids", type_=Text)))
    if connection.dialect.name != "sqlite":
        return column.in_(bindparam("ids", expanding=True))
    given = func.json_each(bindparam("ids")).table_valued("value")
    return column.in_(select(given.c.value))


def ids_given(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    """The parameter of `among_given`."""
    if connection.dialect.name == "postgresql":
        return {"ids": _literal(ids)}
    return {"ids": json.dumps(ids) if connection.dialect.name == "sqlite" else ids}


def exactly(dialect: str, group: Mapping[ColumnElement[Any], Any]) -> ColumnElement[bool]:
    """Whether the columns are these values. On Postgres whole rows are compared, which says the same: a query in the
    order of the columns then has only the index that begins with them to go by, whatever the statistics are."""
    if dialect != "postgresql":
        return and_(*(column == value for column, value in group.items()))
    place = tuple_(*group)
    given = tuple_(*(literal(value, column.type) for column, value in group.items()))
    return and_(place >= given, place <= given)


def _uuids(given: BindParameter[str]) -> Cast[Any]:
    # A sub-select is worked out once, the bare cast for every row that is looked at.
    array = ARRAY(UUID(as_uuid=False))
    return cast(select(cast(given, array)).scalar_subquery(), array)


def _literal(ids: Sequence[str]) -> str:
    """An array of Postgres in its text form. What is no UUID is no id, and could end the array."""
    text = f"{{{','.join(ids)}}}"
    if _IDS.fullmatch(text):
        return text
    return f"{{{','.join(job_id for job_id in ids if _ID.fullmatch(job_id))}}}"


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


LOCK_SECONDS = 600


def lock_schema(connection: Connection, name: str) -> None:
    """Until the transaction ends (MySQL: the connection), nobody else who asks in this database gets the same lock.
    Raises `Refused` where it was not to be had in all that time (Postgres: the driver's error)."""
    if connection.dialect.name == "postgresql":
        digest = blake2b(name.encode(), digest_size=8).digest()
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock($1)", (int.from_bytes(digest, "big", signed=True),))
        return
    # There a lock belongs to the server and not to a database, and no name may be longer than 64.
    asked = f"SELECT GET_LOCK(CONCAT('jobmaster ', MD5(CONCAT(DATABASE(), %s))), {LOCK_SECONDS})"
    if connection.exec_driver_sql(asked, (name,)).scalar_one() != 1:
        raise Refused(
            f"the schema is being changed by somebody else for more than {LOCK_SECONDS} s: look for a `jobmaster "
            "migrate` that hangs (SHOW PROCESSLIST), then try again"
        )


_MYSQL_VALUES = frozenset({1048, 1264, 1265, 1292, 1366, 1406, 1690, 3819, 4025})
"""NULL where none may be, out of range, cut, not of that character set, too long, against a CHECK."""

_DRIVER_WORDS = ("invalid input for query argument", "Error binding parameter")
"""What asyncpg and sqlite3 say, without any code, to a value that they can't even send."""


SEALED = "this master is sealed"
"""What a database says to whoever writes to a master that was moved."""


def is_sealed(error: DBAPIError) -> bool:
    """Whether a statement failed because of the seal."""
    return SEALED in str(error.orig)


def sealed_words(error: DBAPIError) -> str:
    """What the database said, without the driver's words around it."""
    said = str(error.orig)
    return said[said.index(SEALED) :].splitlines()[0].rstrip("')\"")


def blames_value(error: Exception) -> bool:
    """Whether the error is about a value that was to be written, and would be again: not about the connection, a
    lock, or a table that is not there."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, ValueError | TypeError | OverflowError)
    if error.connection_invalidated or is_sealed(error):
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
