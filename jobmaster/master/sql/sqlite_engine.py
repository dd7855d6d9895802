"""The master's statements on SQLite: on the process's one writer thread for that file, and on its readers."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.migrating import ONE_AT_A_TIME
from jobmaster.master.sql.dialects import is_sealed, sealed_words
from jobmaster.model.errors import MasterSealed, MasterUnavailable, Refused, UnsafeStore
from jobmaster.sqlite import Database, check_untouched, open_database, path_of
from jobmaster.sqlite.core import core_engine
from jobmaster.sqlite.faults import is_environmental

T = TypeVar("T")


class SqliteEngine:
    """One file. Store time is the clock given: one host, one clock."""

    remote = False
    serial = True

    def __init__(self, url: str, clock: Clock) -> None:
        self.store = path_of(url)
        self.key: str | None = f"sqlite:{self.store}"
        self._clock = clock
        self._database: Database | None = None
        self._local = threading.local()

    async def open(self, create: bool = True) -> bool:
        if self._database is not None:
            return True
        try:
            if not create and not await asyncio.to_thread(check_untouched, self.store):
                return False
            self._database = await asyncio.to_thread(open_database, self.store)
        except UnsafeStore:
            raise
        except Refused as error:
            raise MasterUnavailable(str(error)) from error
        return True

    async def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await asyncio.to_thread(database.close)

    async def write(
        self,
        fn: Callable[[sqlalchemy.Connection], T],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
    ) -> T:
        return await self._opened().write(
            lambda raw: self._run(raw, fn), before_commit=before_commit, after_commit=after_commit
        )

    async def read(self, fn: Callable[[sqlalchemy.Connection], T], *, at_once: bool = False) -> T:
        def snapshot(raw: sqlite3.Connection) -> T:
            # Ended by the reader; a union of two tables must see both at one moment.
            raw.execute("BEGIN")
            return self._run(raw, fn)

        return await self._opened().read(snapshot)

    async def change_schema(self, fn: Callable[[sqlalchemy.Connection], T]) -> T:
        def alone(connection: sqlalchemy.Connection) -> T:
            # The writer thread may wait: whoever else migrates does so on another one.
            with ONE_AT_A_TIME:
                return fn(connection)

        return await self.write(alone)

    async def check(self) -> None:
        """Nothing to do: a file is checked when it is opened, and what is set then is set by ourselves."""

    def now_us(self, connection: sqlalchemy.Connection) -> int:
        return self._clock.wall_us()

    def facts(self) -> dict[str, str]:
        return self._opened().facts()

    def findings(self) -> tuple[str, ...]:
        return self._opened().findings()

    def _opened(self) -> Database:
        if self._database is None:
            raise MasterUnavailable(f"{self.store} is not open", "call open() first")
        return self._database

    def _core(self, raw: sqlite3.Connection) -> sqlalchemy.Engine:
        """The thread's connection as SQLAlchemy sees it, made once."""
        known: tuple[sqlite3.Connection, sqlalchemy.Engine] | None = getattr(self._local, "core", None)
        if known is None or known[0] is not raw:
            known = self._local.core = raw, core_engine(raw)
        return known[1]

    def _run(self, raw: sqlite3.Connection, fn: Callable[[sqlalchemy.Connection], T]) -> T:
        try:
            with self._core(raw).connect() as connection:
                return fn(connection)
        except DBAPIError as error:
            if error.orig is not None and is_environmental(error.orig):
                raise error.orig from error
            if is_sealed(error):
                raise MasterSealed(f"{self.store}: {sealed_words(error)}") from error
            raise Refused(f"{self.store}: {error.orig}") from error
        except (OverflowError, UnicodeError) as error:
            raise Refused(f"{self.store}: a value can't be stored ({error})") from error
