"""The master's statements on a database server, through SQLAlchemy's asyncio engine."""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from jobmaster.contracts.attempt import may_commit
from jobmaster.contracts.migrating import one_at_a_time
from jobmaster.contracts.mysql_settings import MYSQL_QUESTIONS, mysql_facts, mysql_faults
from jobmaster.contracts.server_settings import (
    POSTGRES_QUESTION,
    postgres_facts,
    postgres_faults,
    postgres_findings,
    refuse_unless,
)
from jobmaster.master.sql.dialects import is_sealed, lock_schema, sealed_words, server_now_us
from jobmaster.master.sql.sessions import CONNECT_SECONDS, connect_arguments, encryption_of
from jobmaster.model.errors import ConfigurationError, Indeterminate, MasterSealed, MasterUnavailable, Refused
from jobmaster.telemetry.failpoints import failpoint

T = TypeVar("T")

DRIVERS = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+aiomysql", "mariadb": "mariadb+aiomysql"}
ATTEMPTS = 3

_LOST_STATES = frozenset({"08", "53", "57"})
"""Postgres: connection, no room, shutting down. A refused password or a database that is not there mends itself
rarely: a start fails of those."""

_LOST_NUMBERS = frozenset({1040, 1053, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 4031})
"""The same for MySQL."""
_ENDED_NUMBERS = frozenset({1053, 1927})
"""Of these SQLAlchemy does not know that they are the last words of a connection: server shutdown, and KILL."""
_REPEATABLE = frozenset({"40001", "40P01", "1020", "1205", "1213", "1305", "3572"})
"""Serialisation failures and deadlocks: the transaction is gone, and the next try may well succeed. So it is after a
lock that was not to be had in time, of which MySQL itself takes back the statement only. Of a deadlock inside of a
savepoint no more is told than that the savepoint is gone (1305), and all else with it."""


class ServerEngine:
    """One database on a server, READ COMMITTED throughout: what must not change between reading and writing is locked
    row by row."""

    remote = True
    serial = False

    def __init__(self, url: str, accept_unsafe: bool = False, tls: ssl.SSLContext | None = None) -> None:
        parsed = make_url(url)
        self.store = parsed.render_as_string(hide_password=True)
        # Either name may be given to either kind of server, as to the agent in the same database.
        kind = "mysql" if parsed.get_backend_name() == "mariadb" else parsed.get_backend_name()
        self.key: str | None = f"{kind}:{parsed.host}:{parsed.port}/{parsed.database}"
        plain, self._encryption = encryption_of(parsed)
        self._url = plain.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
        self._backend = self._url.get_backend_name()
        self._accept_unsafe = accept_unsafe
        self._tls = tls
        self._findings: tuple[str, ...] = ()
        self._facts: dict[str, str] = {}
        self._engine: AsyncEngine | None = None

    async def open(self, create: bool = True) -> bool:
        if self._engine is None:
            self._engine = self._make(pool_timeout=CONNECT_SECONDS)
        return True

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def write(
        self,
        fn: Callable[[Connection], T],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
    ) -> T:
        return await self._tried(lambda: self._transact(fn, before_commit, after_commit))

    async def read(self, fn: Callable[[Connection], T], *, at_once: bool = False) -> T:
        return await self._tried(lambda: self._look(fn, at_once))

    async def _tried(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it again where nothing was applied and the next try may well succeed.

        A pooled connection may have ended unseen, with the server it was to. Finding out beforehand would cost every
        call a round trip, so it is the first statement that finds out; all others are thrown away with it."""
        for attempt in range(ATTEMPTS):
            try:
                return await work()
            except DBAPIError as error:
                ended = attempt == 0 and error.connection_invalidated
                if attempt == ATTEMPTS - 1 or not (ended or _repeatable(error)):
                    raise self._refused(error) from error
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                raise self._refused(error) from error
        raise AssertionError("every attempt returns or raises")

    async def _look(self, fn: Callable[[Connection], T], at_once: bool) -> T:
        async with self._opened().connect() as connection:
            if self._backend == "postgresql":
                await connection.execution_options(isolation_level="AUTOCOMMIT" if at_once else "REPEATABLE READ")
            elif not at_once:
                # For this transaction only: set for the session, as SQLAlchemy would, it takes four round trips.
                await connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return await connection.run_sync(fn)

    async def change_schema(self, fn: Callable[[Connection], T]) -> T:
        # On a connection of its own, as building an index may take longer than any other statement may.
        engine = self._make(patient=True, poolclass=NullPool)
        try:
            async with one_at_a_time(), engine.begin() as connection:
                await connection.run_sync(lock_schema, "master")
                return await connection.run_sync(fn)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise self._refused(error) from error
        finally:
            await engine.dispose()

    async def check(self) -> None:
        if self._backend == "postgresql":
            settings = await self._settings(POSTGRES_QUESTION)
            faults, others, facts = postgres_faults(settings), postgres_findings(settings), postgres_facts(settings)
        else:
            settings = await self._settings(*MYSQL_QUESTIONS)
            faults, others, facts = mysql_faults(settings), [], mysql_facts(settings)
        accepted = refuse_unless(self.store, faults, accept_unsafe=self._accept_unsafe)
        self._findings = (*accepted, *others)
        self._facts = facts

    async def _settings(self, *questions: str) -> dict[str, str]:
        """What a session like those that write is set to."""

        def ask(connection: Connection) -> dict[str, str]:
            return {str(name): str(value) for text in questions for name, value in connection.exec_driver_sql(text)}

        return await self.read(ask, at_once=True)

    def now_us(self, connection: Connection) -> int:
        return server_now_us(connection)

    def facts(self) -> dict[str, str]:
        return {"database": self.store, "driver": self._url.drivername} | self._facts

    def findings(self) -> tuple[str, ...]:
        return self._findings

    async def _transact(self, fn: Callable[[Connection], T], before_commit: str | None, after_commit: str | None) -> T:
        async with self._opened().connect() as connection:
            transaction = await connection.begin()
            result = await connection.run_sync(fn)
            if before_commit is not None:
                failpoint(before_commit)
            if not may_commit():
                raise Refused(f"{self.store}: nobody waits for this call any more; nothing was written")
            try:
                await transaction.commit()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                raise Indeterminate(f"{self.store}: COMMIT was not answered ({error})") from error
            if after_commit is not None:
                failpoint(after_commit)
            return result

    def _make(self, *, patient: bool = False, **options: Any) -> AsyncEngine:
        try:
            options["connect_args"] = connect_arguments(self._backend, patient, self._tls) | self._encryption
            # A statement with bytes of data in it must not reach a log by way of an error.
            engine = create_async_engine(self._url, isolation_level="READ COMMITTED", hide_parameters=True, **options)
        except ModuleNotFoundError as error:
            extra = "postgres" if self._backend == "postgresql" else "mysql"
            fault = f"master URL {self.store!r}: its driver {error.name!r} is not installed; add the extra [{extra}]"
            raise ConfigurationError([fault]) from error
        event.listen(engine.sync_engine, "handle_error", _tell_ended)
        return engine

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise MasterUnavailable(f"{self.store} is not open", "call open() first")
        return self._engine

    def _refused(self, error: Exception) -> Refused:
        if isinstance(error, DBAPIError) and is_sealed(error):
            return MasterSealed(f"{self.store}: {sealed_words(error)}")
        words = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        if _lost(error):
            return MasterUnavailable(f"{self.store}: {words}", "check that the server runs and takes this user")
        return Refused(f"{self.store}: {words}")


def _tell_ended(context: ExceptionContext) -> None:
    if next(iter(getattr(context.original_exception, "args", ())), None) in _ENDED_NUMBERS:
        context.is_disconnect = True


def _lost(error: Exception) -> bool:
    """Whether the server is to blame and not the statement."""
    if not isinstance(error, DBAPIError):
        return True
    state, number = _code(error)
    return error.connection_invalidated or state[:2] in _LOST_STATES or number in _LOST_NUMBERS


def _code(error: DBAPIError) -> tuple[str, object]:
    """SQLSTATE, where the driver gives one, and the first argument, which is MySQL's number."""
    return str(getattr(error.orig, "sqlstate", None) or ""), next(iter(getattr(error.orig, "args", ())), None)


def _repeatable(error: DBAPIError) -> bool:
    state, number = _code(error)
    return state in _REPEATABLE or str(number) in _REPEATABLE
