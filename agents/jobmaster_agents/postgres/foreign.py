"""Foreign connections: `put` and `settle` inside a transaction of the caller's, by whichever driver it is made with.

The texts and the values are those of `putting` and `settling`; here is only how each driver is told. None of them is
imported: a connection can only be had by who has.
"""

import sys
from collections.abc import Sequence
from typing import Any

from jobmaster.contracts.values import PutAnswer, SettleAnswer, Settlement
from jobmaster.model.errors import OptionInvalid, Refused
from jobmaster.model.job import Job
from jobmaster_agents.postgres.connection import CLOSED_TO_NEW, OTHER_STORE, Database
from jobmaster_agents.postgres.putting import Putting, answers
from jobmaster_agents.postgres.settling import Settling

SNAPSHOT_KEPT = "JM003"
"""SQLSTATE of the function behind `put` where the transaction is not READ COMMITTED."""
_ABSENT = frozenset({"42883", "42P01", "3F000"})
"""No such function, table or schema."""

EXPECTED = (
    "an asyncpg connection, a SQLAlchemy AsyncConnection or AsyncSession on asyncpg or psycopg, "
    "or a psycopg AsyncConnection"
)


async def put_in(
    putting: Putting, database: Database, connection: Any, jobs: Sequence[Job], deadline_us: int
) -> list[PutAnswer]:
    """In the transaction open there. Raises `OptionInvalid` for a connection that can't do it; the driver's own error
    if it breaks."""
    if not jobs:
        return []
    text, values, order = putting.statement(jobs, deadline_us)
    return answers(await _run(connection, database, text, values), order)


async def settle_in(settling: Settling, database: Database, connection: Any, item: Settlement) -> SettleAnswer:
    """In the transaction open there; stale for whatever can't be settled, as there is no telling why without leaving
    that transaction. Raises as `put_in`."""
    text, values = settling.statement(item)
    # Twice, as a statement does not see the row that an extend under way wrote while it waited for it. By now the row
    # is locked, so it is seen as it stays.
    settled = await _run(connection, database, text, values) or await _run(connection, database, text, values)
    return SettleAnswer.STALE if settled is None else SettleAnswer.ACCEPTED


async def _run(connection: Any, database: Database, text: str, values: Sequence[Any]) -> Any:
    """The only value of the only row; None also for no row."""
    try:
        return await _fetch(connection, text, values)
    except OptionInvalid:
        raise
    except Exception as error:
        meant = _meaning(error, database, connection)
        if meant is None:
            raise
        raise meant from error


async def _fetch(connection: Any, text: str, values: Sequence[Any]) -> Any:
    alchemy = sys.modules.get("sqlalchemy.ext.asyncio")
    if alchemy is not None:
        if isinstance(connection, alchemy.AsyncSession | alchemy.async_scoped_session):
            connection = await connection.connection()
        if isinstance(connection, alchemy.AsyncConnection):
            return await _by_sqlalchemy(connection, text, values)
    asyncpg = sys.modules.get("asyncpg")
    if asyncpg is not None and isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        return await _by_asyncpg(connection, text, values)
    psycopg = sys.modules.get("psycopg")
    if psycopg is not None and isinstance(connection, psycopg.AsyncConnection):
        return await _by_psycopg(psycopg, connection, text, values)
    raise OptionInvalid("connection", type(connection).__name__, EXPECTED)


async def _by_asyncpg(connection: Any, text: str, values: Sequence[Any]) -> Any:
    if not connection.is_in_transaction():
        raise _no_transaction("async with connection.transaction(): …")
    return await connection.fetchval(text, *values)


async def _by_psycopg(psycopg: Any, connection: Any, text: str, values: Sequence[Any]) -> Any:
    if connection.autocommit and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        raise _no_transaction("async with connection.transaction(): …")
    # Our text has its placeholders as the server has them, and a list is bound by its cast there.
    async with psycopg.AsyncRawCursor(connection) as cursor:
        await cursor.execute(text, values)
        row = await cursor.fetchone()
        return None if row is None else row[0]


async def _by_sqlalchemy(connection: Any, text: str, values: Sequence[Any]) -> Any:
    if connection.dialect.name != "postgresql" or connection.dialect.driver not in ("asyncpg", "psycopg"):
        shown = f"{connection.dialect.name}+{connection.dialect.driver}"
        raise OptionInvalid("connection", shown, EXPECTED)
    if (await connection.get_raw_connection()).dbapi_connection.autocommit:
        raise _no_transaction("one whose isolation level is not AUTOCOMMIT")
    if connection.dialect.driver == "asyncpg":
        # SQLAlchemy begins the transaction with its first statement, so the statement has to go through it.
        return (await connection.exec_driver_sql(text, tuple(values))).scalar()
    raw = await connection.get_raw_connection()
    return await _by_psycopg(sys.modules["psycopg"], raw.driver_connection, text, values)


def _no_transaction(remedy: str) -> OptionInvalid:
    return OptionInvalid("connection", "one without a transaction", f"one with a transaction open on it: {remedy}")


def _meaning(error: Exception, database: Database, connection: Any) -> Exception | None:
    """What an error of the function behind `put` says to the caller; None if it is the driver's own affair."""
    origin: BaseException | None = error
    state = None
    # SQLAlchemy keeps the driver's error as `orig`, and that one, on asyncpg, the real one as its cause.
    while state is None and origin is not None:
        state = getattr(origin, "sqlstate", None)
        origin = getattr(origin, "orig", None) or origin.__cause__
    if state in _ABSENT:
        return OptionInvalid(
            "connection",
            type(connection).__name__,
            f"one to {database.address.shown}, where the agent keeps its jobs; there is no such agent behind this one",
        )
    if state == SNAPSHOT_KEPT:
        return OptionInvalid("connection", type(connection).__name__, f"a READ COMMITTED transaction: {_first(error)}")
    if state in (OTHER_STORE, CLOSED_TO_NEW):
        return Refused(f"the agent behind this connection takes no job: {_first(error)}")
    return None


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
