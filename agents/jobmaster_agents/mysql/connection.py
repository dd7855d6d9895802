"""Connections: one database, through a pool of the event loop that opened it, and what its errors mean.

An error the server reports leaves a transaction open that is half done (a lock that was not to be had in time undoes
its statement only), so whatever goes wrong is followed by a ROLLBACK, or by the end of that connection. What was not
committed then is `Refused`; a connection that ended while a COMMIT was under way leaves it open: `Indeterminate`.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT

from jobmaster.contracts.mysql_settings import MYSQL_SESSION
from jobmaster.model.errors import AgentUnreachable, ConfigurationError, Indeterminate, Refused, StoreError, quoted
from jobmaster.mysql_connecting import connect
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.mysql.dialect import Dialect
from jobmaster_agents.mysql.session import Session

T = TypeVar("T")

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
"""A server that has not answered after that long is given up, and its connection with it."""
ROLLBACK_SECONDS = 1.0
"""Whoever was cancelled waits no longer for a server that does not answer."""
TRIES = 6
_PAUSE = 0.01
_PAUSE_CAP = 0.5

_OURS = ", ".join(f"{name} = {value}" for name, value in MYSQL_SESSION.items())
SESSION = f"SET NAMES utf8mb4 COLLATE utf8mb4_bin, innodb_lock_wait_timeout = 3, lock_wait_timeout = 10, {_OURS}"
"""What every session is set to, besides what `Dialect.settings` says."""
ISOLATION = "READ-COMMITTED"
"""Under REPEATABLE READ claimers lock gaps against each other and against puts, and a put could miss a tombstone."""

_LATER = frozenset({1020, 1205, 1213, 3572})
"""Changed meanwhile, lock not to be had in time, deadlock, row locked: the next try may well succeed."""
_ENDED = frozenset(
    {1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1317, 1927, 2006, 2013, 2014, 2055, 4031}
)
"""The connection is gone, or was told to go."""
_NO_ENTRY = frozenset({1040, 1129, 1203, 1226, 2002, 2003})
"""No room, for now."""
_UNKNOWN_HERE = frozenset({1044, 1045, 1049, 1698, 2026, 3118, 4151})
"""A user or a database that the server does not know, or TLS, which does not mend itself."""
_CONNECTION_LOST = (pymysql.err.InterfaceError, pymysql.err.InternalError, OSError, EOFError, TimeoutError)


class Address:
    """Where a database is, from the URL of an agent."""

    def __init__(self, url: str, agent: str, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        try:
            parts = urlsplit(url)
            port, self.host = parts.port, parts.hostname or "localhost"
        except ValueError as error:
            raise ConfigurationError([f"agent {agent!r}: its URL is not one: {error}"]) from error
        self.database = unquote(parts.path.lstrip("/"))
        faults = []
        if not self.database:
            faults.append("its URL names no database; expected mysql://user:password@host:port/database")
        options = dict(parse_qsl(parts.query))
        self.socket = options.pop("unix_socket", None)
        if options:
            faults.append(f"its URL has unknown options {sorted(options)}; 'unix_socket' is known")
        if tls and self.socket:
            faults.append("tls is for a host; what goes through a socket does not leave the machine")
        if faults:
            raise ConfigurationError([f"agent {agent!r}: {fault}" for fault in faults])
        self.port = port or 3306
        self.user = unquote(parts.username) if parts.username else None
        self.password = unquote(parts.password or "")
        # As the master words it: equal keys mean that one database serves both.
        self.key = f"mysql:{parts.hostname}:{port}/{self.database}"
        self.shown = f"mysql://{parts.hostname or ''}{f':{port}' if port else ''}/{self.database}"


class Database:
    """One database. `open` and everything after it belong to one event loop."""

    def __init__(self, address: Address, agent: str, *, size: int) -> None:
        self.address = address
        self.dialect = Dialect("mariadb", (0, 0, 0))
        """Which of the two it is is known once it is open."""
        self._agent = agent
        self._size = size
        self._turns: asyncio.Semaphore | None = None
        self._idle: list[Session] = []
        self._used: set[Session] = set()
        self._opening = asyncio.Lock()
        self._random = random.Random()  # noqa: S311 - spreads retries

    async def open(self) -> None:
        """Connect once, so that a wrong address or password shows here. Raises `AgentUnreachable`, and `Refused` for a
        user or database that the server does not know, as that does not mend itself. Does nothing if it is open."""
        if self._turns is not None:
            return
        async with self._opening:
            if self._turns is None:
                self._idle.append(await self._connect())
                self._turns = asyncio.Semaphore(self._size)

    async def close(self) -> None:
        """Give the connections back. Never raises."""
        self._turns = None
        idle, self._idle = self._idle, []
        for session in idle:
            await session.leave()
        for session in self._used:
            session.end()

    async def write(
        self,
        change: Callable[[Session], Awaitable[T]],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
        patient: bool = True,
    ) -> T:
        """A transaction around `change`, which is called again where nothing was applied but might be: deadlocks, and
        locks that were not to be had in time. Not `patient`: then it is not."""

        async def once(session: Session) -> T:
            session.begin()
            result = await change(session)
            if before_commit is not None:
                failpoint(before_commit)
            try:
                await session.commit()
            except _CONNECTION_LOST as error:
                raise self._indeterminate(error) from error
            except pymysql.err.MySQLError as error:
                if _number(error) in _ENDED:
                    raise self._indeterminate(error) from error
                raise
            return result

        result = await self._again(once, tries=TRIES if patient else 1)
        if after_commit is not None:
            failpoint(after_commit)
        return result

    async def read(self, question: Callable[[Session], Awaitable[T]], *, snapshot: bool = False) -> T:
        """`question`, which changes nothing; with `snapshot` all its statements see one state."""

        async def once(session: Session) -> T:
            if not snapshot:
                return await question(session)
            session.begin(snapshot=True)
            result = await question(session)
            await session.commit()
            return result

        return await self._again(once)

    async def ask(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement that changes nothing: its rows."""
        return await self._again(lambda session: session.fetch(text, *values))

    async def _again(self, once: Callable[[Session], Awaitable[T]], *, tries: int = TRIES) -> T:
        """Where nothing was applied and might be yet: again. After the loss of a connection once, on one that is newer
        than the loss, as the others of the pool may have ended with it."""
        since = 0.0
        for attempt in range(1, tries):
            try:
                async with self._session(since) as session:
                    return await once(session)
            except Later:
                ceiling = min(_PAUSE_CAP, _PAUSE * 3.0**attempt)
                await asyncio.sleep(self._random.uniform(0, ceiling))
            except Lost:
                if since:
                    raise
                since = time.monotonic()
        async with self._session(since) as session:
            return await once(session)

    @asynccontextmanager
    async def _session(self, since: float) -> AsyncIterator[Session]:
        """A session made after that time, in no transaction, and errors as what they mean here."""
        turns = self._turns
        if turns is None:
            raise Refused(f"agent {self._agent!r} is not open: call open() first")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await turns.acquire()
        except TimeoutError as error:
            raise Refused(
                f"agent {self._agent!r}: its {self._size} connections were all in use for {CONNECT_SECONDS:g} s; "
                "give it more with the option 'pool', or start less at a time"
            ) from error
        try:
            session = await self._acquire(since)
            self._used.add(session)
            try:
                yield session
            except pymysql.err.MySQLError as error:
                raise self._meant(error) from error
            except _CONNECTION_LOST as error:
                session.end()
                raise self._lost(error) from error
            finally:
                self._used.discard(session)
                await self._release(session)
        finally:
            turns.release()

    async def _acquire(self, since: float) -> Session:
        while self._idle:
            session = self._idle.pop()
            if session.alive and session.born >= since:
                return session
            session.end()
        return await self._connect()

    async def _release(self, session: Session) -> None:
        if session.alive and session.dirty:
            # What went wrong is told, also to who was cancelled, and not that the connection went with it.
            try:
                async with asyncio.timeout(ROLLBACK_SECONDS):
                    await session.rollback()
            except (pymysql.err.MySQLError, *_CONNECTION_LOST):
                session.end()
        if self._turns is not None and session.alive:
            self._idle.append(session)
        else:
            session.end()

    async def _connect(self) -> Session:
        address = self.address
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                raw = await connect(
                    host=address.host,
                    port=address.port,
                    user=address.user,
                    password=address.password,
                    db=address.database,
                    unix_socket=address.socket,
                    charset="utf8mb4",
                    autocommit=True,
                    connect_timeout=CONNECT_SECONDS,
                    client_flag=CLIENT.FOUND_ROWS | CLIENT.MULTI_STATEMENTS,
                    program_name="jobmaster",
                    ssl=address.tls,
                )
            session = Session(raw)
            try:
                self.dialect = session.dialect
                await session.prepare(SESSION, COMMAND_SECONDS, ISOLATION)
            except BaseException:
                session.end()
                raise
        except pymysql.err.MySQLError as error:
            if _number(error) in _UNKNOWN_HERE:
                raise Refused(str(self._unreachable(error))) from error
            raise self._unreachable(error) from error
        except _CONNECTION_LOST as error:
            raise self._unreachable(error) from error
        return session

    def _indeterminate(self, error: BaseException) -> Indeterminate:
        return Indeterminate(f"the connection was lost ({_words(error)})", agent=self._agent)

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

    def _meant(self, error: pymysql.err.MySQLError) -> StoreError:
        number = _number(error)
        if number in _ENDED or isinstance(error, pymysql.err.InterfaceError):
            return self._lost(error)
        if number in _NO_ENTRY:
            return self._unreachable(error)
        words = f"agent {self._agent!r}: {self.address.shown}: {_words(error)}"
        return Later(words) if number in _LATER else Refused(words)


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


def duplicate_key(error: BaseException) -> bool:
    """Whether a row with that key is there already."""
    return isinstance(error, pymysql.err.IntegrityError) and _number(error) == 1062


def error_number(error: BaseException | None) -> int:
    """By which number the server calls it; 0 for what it did not say."""
    return _number(error) if isinstance(error, pymysql.err.MySQLError) else 0


def _number(error: BaseException) -> int:
    number = next(iter(error.args), 0)
    return number if isinstance(number, int) else 0


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {quoted(str(error), 200)}" if str(error) else type(error).__name__
