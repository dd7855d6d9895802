"""Connections: one database, through a pool of the event loop that opened it, and what its errors mean.

An error the server reports was rolled back with its statement, so it is `Refused`. A connection that ended, or did not
answer in time, while something was being written leaves it open whether that was committed: `Indeterminate`.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from jobmaster.model.errors import AgentUnreachable, ConfigurationError, Indeterminate, Refused, StoreError, quoted
from jobmaster.telemetry.failpoints import failpoint

T = TypeVar("T")

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
"""A server that has not answered a statement after that long is given up, and its connection with it."""
ROLLBACK_SECONDS = 1.0
"""Whoever was cancelled waits no longer for a server that does not answer."""
TRIES = 10
"""With `lock_timeout` below: somebody in the way is waited for some ten seconds, by those who have no other way."""
_PAUSE = 0.02
_PAUSE_CAP = 0.5

ORDERED: Mapping[str, str] = {"enable_bitmapscan": "off", "enable_seqscan": "off"}
"""What is read is read in the order of an index, and only as far as needed. Where the planner takes a table for all but
empty, since that is how it was when last looked at, it would as soon collect a whole line and sort it."""

SESSION: Mapping[str, str] = {
    "application_name": "jobmaster",
    "statement_timeout": "10000",
    "lock_timeout": "1000",
    "idle_in_transaction_session_timeout": "10000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # Compiling a statement takes longer than any of ours runs, and planning some of them takes longer than that, too.
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    **ORDERED,
}
"""What every session is set to, where the server is reached directly. A pooler between would hand a session with other
settings to somebody else."""

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    _Base = asyncpg.Connection[asyncpg.Record]
else:
    _Base = asyncpg.Connection

_LATER = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.LockNotAvailableError)
"""Nothing was applied, and the next try may well succeed."""
_ENDED = (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)
_CONNECTION_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    *_ENDED,
    OSError,
    TimeoutError,
)
_NO_ENTRY = (
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


class _Session(_Base):
    """Nothing of ours changes a session, so there is nothing to reset, which would cost a round trip at each use."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.born = time.monotonic()

    def get_reset_query(self) -> str:
        return ""


class Address:
    """Where a database is, from the URL of an agent."""

    def __init__(self, url: str, agent: str) -> None:
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError as error:
            raise ConfigurationError([f"agent {agent!r}: its URL is not one: {error}"]) from error
        database = parts.path.lstrip("/")
        if not database:
            fault = "its URL names no database; expected postgresql://user:password@host:port/database"
            raise ConfigurationError([f"agent {agent!r}: {fault}"])
        options = dict(parse_qsl(parts.query))
        self.dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(options), ""))
        # As the master words it: equal keys mean that one database serves both.
        self.key = f"postgresql:{host}:{port}/{database}"
        self.shown = f"postgresql://{host or ''}{f':{port}' if port else ''}/{database}"


class Database:
    """One database. `open` and everything after it belong to one event loop."""

    def __init__(self, address: Address, agent: str, *, size: int, pooled: bool | None = None) -> None:
        """`pooled`: reached through a pooler that gives each transaction another session; None: `open` finds out."""
        self.address = address
        self._pooled = pooled
        self._agent = agent
        self._size = size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._spare: list[Any] = []
        """Connections taken from the pool that nobody uses just now: to give one back to it and take it again costs a
        task and a turn of the loop, as long as a short statement."""
        self._waiting = 0
        """How many ask the pool for one."""
        self._opening = asyncio.Lock()
        self._random = random.Random()  # noqa: S311 - spreads retries

    async def open(self) -> None:
        """Connect once, so that a wrong address or password shows here. Raises `AgentUnreachable`, and `Refused` for a
        user or database that the server does not know, as that does not mend itself. Does nothing if it is open."""
        if self._pool is not None:
            return
        try:
            async with self._opening:
                if self._pool is None and self._pooled is None:
                    self._pool = await self._open_unless_pooled()
                    self._pooled = self._pool is None
                if self._pool is None:
                    self._pool = await self._create_pool()
        except (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            raise Refused(str(self._unreachable(error))) from error
        except (asyncpg.PostgresError, *_CONNECTION_LOST) as error:
            raise self._unreachable(error) from error

    @property
    def pooled(self) -> bool:
        """Whether each transaction may get another session: nothing can be set for a session, prepared in it, or be
        heard through it."""
        return bool(self._pooled)

    async def _create_pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        # No connection is kept for its own sake: with the server away, asyncpg would go on logging that it has none.
        pool = asyncpg.create_pool(min_size=0, max_size=self._size, **self.settings())
        await pool
        try:
            async with pool.acquire(timeout=CONNECT_SECONDS):
                return pool
        except BaseException:
            pool.terminate()
            raise

    async def _open_unless_pooled(self) -> "asyncpg.Pool[asyncpg.Record] | None":
        """Connections to the server itself; None if what answers is a pooler."""
        try:
            pool = await self._create_pool()
        except asyncpg.ProtocolViolationError as error:
            # A pooler refuses settings that it could not keep. What else this may be shows without them.
            if "startup parameter" in str(error):
                return None
            raise
        try:
            async with pool.acquire() as connection:
                # A pooler invents the number that it tells its client.
                direct = await connection.fetchval("SELECT pg_backend_pid()") == connection.get_server_pid()
        except BaseException:
            pool.terminate()
            raise
        if direct:
            return pool
        pool.terminate()
        return None

    def settings(self) -> dict[str, Any]:
        """What `asyncpg.connect` is called with."""
        return {
            "dsn": self.address.dsn,
            "timeout": CONNECT_SECONDS,
            "command_timeout": COMMAND_SECONDS,
            "connection_class": _Session,
            "server_settings": {} if self.pooled else dict(SESSION),
            **({"statement_cache_size": 0} if self.pooled else {}),
        }

    async def close(self) -> None:
        """Give the connections back. Never raises."""
        pool, self._pool = self._pool, None
        spare, self._spare = self._spare, []
        if pool is None:
            return
        try:
            async with asyncio.timeout(1.0):
                for connection in spare:
                    await pool.release(connection)
                await pool.close()
        except Exception:
            pool.terminate()

    async def fetch(
        self,
        sql: str,
        *values: Any,
        before_commit: str | None = None,
        after_commit: str | None = None,
        ordered: bool = False,
        patient: bool = True,
    ) -> list[asyncpg.Record]:
        """One statement that writes, in a transaction of its own: its rows. `ordered`: it must not be planned but in
        the order of an index. Not `patient`: where somebody is in the way it is not tried again."""

        async def once(connection: Connection) -> list[asyncpg.Record]:
            if before_commit is not None:
                failpoint(before_commit)
            if not (ordered and self.pooled):
                return await connection.fetch(sql, *values)
            # Another session each time, which knows nothing of `SESSION`.
            async with connection.transaction():
                await connection.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in ORDERED.items()))
                return await connection.fetch(sql, *values)

        found = await self._again(once, tries=TRIES if patient else 1)
        if after_commit is not None:
            failpoint(after_commit)
        return found

    async def write(
        self,
        change: Callable[[Connection], Awaitable[T]],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
    ) -> T:
        """A transaction (READ COMMITTED) around `change`, which is called again where nothing was applied but might be:
        deadlocks, and locks that were not to be had in time."""

        async def once(connection: Connection) -> T:
            transaction = connection.transaction()
            try:
                await transaction.start()
                result = await change(connection)
                if before_commit is not None:
                    failpoint(before_commit)
            except _CONNECTION_LOST as error:
                # Without a COMMIT nothing of it was applied.
                _end(connection)
                raise self._lost(error) from error
            except BaseException:
                # What went wrong is told, also to who was cancelled, and not that the connection went with it.
                try:
                    if not connection.is_closed():
                        async with asyncio.timeout(ROLLBACK_SECONDS):
                            await transaction.rollback()
                except (asyncpg.PostgresError, *_CONNECTION_LOST):
                    _end(connection)
                raise
            await transaction.commit()
            return result

        result = await self._again(once)
        if after_commit is not None:
            failpoint(after_commit)
        return result

    async def read(self, question: Callable[[Connection], Awaitable[T]], *, snapshot: bool = False) -> T:
        """`question`, which changes nothing; with `snapshot` all its statements see one state."""

        async def once(connection: Connection) -> T:
            if not snapshot:
                return await question(connection)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await question(connection)

        return await self._again(once, writes=False)

    async def ask(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        """One statement that changes nothing: its rows."""
        return await self._again(lambda connection: connection.fetch(sql, *values), writes=False)

    async def _again(self, once: Callable[[Connection], Awaitable[T]], *, writes: bool = True, tries: int = TRIES) -> T:
        """Where nothing was applied and might be yet: again. After the loss of a connection once, on one that is newer
        than the loss, as the others of the pool may have ended with it."""
        since = 0.0
        for attempt in range(1, tries):
            try:
                async with self._session(writes=writes, since=since) as connection:
                    return await once(connection)
            except Later:
                ceiling = min(_PAUSE_CAP, _PAUSE * 4.0**attempt)
                await asyncio.sleep(self._random.uniform(0, ceiling))
            except Lost:
                if since:
                    raise
                since = time.monotonic()
        async with self._session(writes=writes, since=since) as connection:
            return await once(connection)

    @asynccontextmanager
    async def _session(self, *, writes: bool, since: float) -> AsyncIterator[Connection]:
        """A connection of the pool made after that time, and errors as what they mean here."""
        pool = self._pool
        if pool is None:
            raise Refused(f"agent {self._agent!r} is not open: call open() first")
        try:
            connection = await self._acquire(pool, since)
        except TimeoutError as error:
            if pool.get_size() == pool.get_max_size() and not pool.get_idle_size():
                raise Refused(
                    f"agent {self._agent!r}: its {self._size} connections were all in use for {CONNECT_SECONDS:g} s; "
                    "give it more with the option 'pool', or start less at a time"
                ) from error
            raise self._unreachable(error) from error
        except (asyncpg.PostgresError, *_CONNECTION_LOST) as error:
            raise self._unreachable(error) from error
        clean = False
        try:
            yield connection
            clean = True
        except StoreError:
            raise
        except _CONNECTION_LOST as error:
            # A connection that did not answer is not to be talked to again, not even to say good-bye.
            _end(connection)
            if not writes:
                raise self._lost(error) from error
            raise Indeterminate(f"the connection was lost ({_words(error)})", agent=self._agent) from error
        except asyncpg.DataError as error:
            # Maybe noticed here, when the server had been told to prepare it: what it began for that is still open.
            _end(connection)
            raise self._refused(error) from error
        except asyncpg.PostgresError as error:
            raise self._refused(error) from error
        finally:
            if clean and not self._waiting and pool is self._pool:
                self._spare.append(connection)
            else:
                # What goes wrong there ends the connection, and says nothing of what was done on it.
                with suppress(asyncpg.PostgresError, *_CONNECTION_LOST):
                    await pool.release(connection)

    async def _acquire(self, pool: "asyncpg.Pool[asyncpg.Record]", since: float) -> Any:
        while True:
            connection: Any = self._spare.pop() if self._spare else await self._ask(pool)
            with suppress(asyncpg.InterfaceError):  # it ended just now, and left the pool
                if not connection.is_closed() and connection.born >= since:
                    return connection
            _end(connection)
            await pool.release(connection)

    async def _ask(self, pool: "asyncpg.Pool[asyncpg.Record]") -> Any:
        self._waiting += 1
        try:
            return await pool.acquire(timeout=CONNECT_SECONDS)
        finally:
            self._waiting -= 1

    def _lost(self, error: BaseException) -> AgentUnreachable:
        # Who has waited for an answer in vain is not to wait for another.
        kind = AgentUnreachable if isinstance(error, TimeoutError) else Lost
        return self._unreachable(error, kind)

    def _unreachable(self, error: BaseException, kind: type[AgentUnreachable] = AgentUnreachable) -> AgentUnreachable:
        return kind(
            self._agent,
            f"{self.address.shown}: {_words(error)}",
            "check that the server runs, takes connections, and knows this user and database",
        )

    def _refused(self, error: asyncpg.PostgresError) -> Refused:
        if error.sqlstate == OTHER_STORE:
            return other_store(self._agent, str(error))
        if error.sqlstate == CLOSED_TO_NEW:
            return Refused(
                f"agent {self._agent!r} is {error} and takes no new job: put job {error.detail} elsewhere, "
                "or resume the agent"
            )
        if isinstance(error, _NO_ENTRY):
            return self._unreachable(error)
        words = f"agent {self._agent!r}: {self.address.shown}: {_words(error)}"
        return Later(words) if isinstance(error, _LATER) else Refused(words)


OTHER_STORE = "JM001"
CLOSED_TO_NEW = "JM002"
"""SQLSTATEs of the function behind `put`."""


class Lost(AgentUnreachable):
    """Not applied, because the connection ended first: worth another try on another one."""


class Later(Refused):
    """Not applied, because somebody else was in the way: worth another try."""


def other_store(agent: str, found: str) -> Refused:
    """The store is not the one that was opened."""
    return Refused(
        f"agent {agent!r}: the store is another one than was opened (incarnation {found}); "
        "close and open the agent to work with it"
    )


def _end(connection: Any) -> None:
    """Don't talk to it again."""
    with suppress(asyncpg.InterfaceError):  # it knows itself that it ended, and left the pool
        connection.terminate()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {quoted(str(error), 200)}" if str(error) else type(error).__name__
