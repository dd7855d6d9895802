"""The master's statements on a database server, through SQLAlchemy's asyncio engine."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from jobmaster.master.sql.dialects import server_now_us
from jobmaster.model.errors import ConfigurationError, Indeterminate, MasterUnavailable, Refused
from jobmaster.telemetry.failpoints import failpoint

T = TypeVar("T")

DRIVERS = {"postgresql": "postgresql+asyncpg", "mysql": "mysql+aiomysql", "mariadb": "mariadb+aiomysql"}
ATTEMPTS = 3
CONNECTION_SECONDS = 5.0

_LOST_STATES = frozenset({"08", "28", "3D", "53", "57"})
"""Postgres: connection, authorization, no such database, no room, shutting down."""

_LOST_NUMBERS = frozenset({1040, 1044, 1045, 1049, 1053, 2002, 2003, 2006, 2013, 4031})
"""The same for MySQL."""
_REPEATABLE = frozenset({"40001", "40P01", "1205", "1213"})
"""Serialisation failures and deadlocks: the transaction is gone, and the next try may well succeed."""


class ServerEngine:
    """One database on a server, READ COMMITTED throughout: what must not change between reading and writing is locked
    row by row."""

    serial = False

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.store = parsed.render_as_string(hide_password=True)
        self.key: str | None = f"{parsed.get_backend_name()}:{parsed.host}:{parsed.port}/{parsed.database}"
        self._url = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
        self._engine: AsyncEngine | None = None

    async def open(self, create: bool = True) -> bool:
        if self._engine is not None:
            return True
        try:
            self._engine = create_async_engine(
                self._url,
                isolation_level="READ COMMITTED",
                pool_pre_ping=True,
                pool_timeout=CONNECTION_SECONDS,
                # A statement with bytes of data in it must not reach a log by way of an error.
                hide_parameters=True,
            )
        except ModuleNotFoundError as error:
            extra = "postgres" if self._url.get_backend_name() == "postgresql" else "mysql"
            fault = f"master URL {self.store!r}: its driver {error.name!r} is not installed; add the extra [{extra}]"
            raise ConfigurationError([fault]) from error
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
        for attempt in range(ATTEMPTS):
            try:
                return await self._transact(fn, before_commit, after_commit)
            except DBAPIError as error:
                if attempt == ATTEMPTS - 1 or not _repeatable(error):
                    raise self._refused(error) from error
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                raise self._refused(error) from error
        raise AssertionError("every attempt returns or raises")

    async def read(self, fn: Callable[[Connection], T]) -> T:
        try:
            async with self._opened().connect() as connection:
                await connection.execution_options(isolation_level="REPEATABLE READ")
                return await connection.run_sync(fn)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise self._refused(error) from error

    def now_us(self, connection: Connection) -> int:
        return server_now_us(connection)

    def facts(self) -> dict[str, str]:
        return {"database": self.store, "driver": self._url.drivername}

    def findings(self) -> tuple[str, ...]:
        return ()

    async def _transact(self, fn: Callable[[Connection], T], before_commit: str | None, after_commit: str | None) -> T:
        async with self._opened().connect() as connection:
            transaction = await connection.begin()
            result = await connection.run_sync(fn)
            if before_commit is not None:
                failpoint(before_commit)
            try:
                await transaction.commit()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                raise Indeterminate(f"{self.store}: COMMIT was not answered ({error})") from error
            if after_commit is not None:
                failpoint(after_commit)
            return result

    def _opened(self) -> AsyncEngine:
        if self._engine is None:
            raise MasterUnavailable(f"{self.store} is not open", "call open() first")
        return self._engine

    def _refused(self, error: Exception) -> Refused:
        words = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        if _lost(error):
            return MasterUnavailable(f"{self.store}: {words}", "check that the server runs and takes this user")
        return Refused(f"{self.store}: {words}")


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
