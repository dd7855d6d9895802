"""The database of one file in this process: a writer, readers, hints, shared by whoever opens the same file."""

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from jobmaster.contracts.clock import Clock
from jobmaster.model.errors import Refused
from jobmaster.sqlite.connect import BUSY_SECONDS, connect_reader, findings
from jobmaster.sqlite.faults import is_environmental, refused
from jobmaster.sqlite.identity import abandon
from jobmaster.sqlite.location import check_location
from jobmaster.sqlite.lock import FileLock, has_wal_reset_defect
from jobmaster.sqlite.writer import Request, Writer
from jobmaster.waking import Hints

T = TypeVar("T")

READERS = 2

_open: dict[str, "Database"] = {}
_registry = threading.Lock()


def open_database(path: str, busy_seconds: float = BUSY_SECONDS) -> "Database":
    """The file's database in this process, opened at the first call and closed with the last `close`. May block for
    `busy_seconds` while another process holds the file; the first caller's value holds for all. Raises `Refused` or
    `UnsafeStore`."""
    path = os.path.realpath(path)
    with _registry:
        database = _open.get(path)
        # What a fork has copied has no thread, and its locks are the parent's.
        if database is None or database.process != os.getpid():
            database = _open[path] = Database(path, busy_seconds)
        database.references += 1
    return database


class Database:
    """One file. Made by `open_database`; every method may be called from any thread and any event loop."""

    def __init__(self, path: str, busy_seconds: float) -> None:
        check_location(path)
        self.path = path
        self.key = f"sqlite:{path}"
        """Equal for all who share this file."""
        self.process = os.getpid()
        self.references = 0
        self.clock: Clock | None = None
        """Store time, for whoever keeps time here: the clock of the first who set it."""
        self._busy_seconds = busy_seconds
        self._lock = FileLock(f"{path}.lock") if has_wal_reset_defect(sqlite3.sqlite_version_info) else None
        try:
            self._writer = Writer(path, busy_seconds, self._lock)
        except BaseException:
            if self._lock is not None:
                self._lock.close()
            raise
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(READERS, "sqlite-reader")

    @property
    def generation(self) -> int:
        """Up by one whenever the file was found replaced by another: who keeps something of what was read in it
        before has to look again."""
        return self._writer.generation

    @property
    def hints(self) -> Hints:
        """Who waits for what in this file."""
        return self._writer.hints

    def write(
        self,
        fn: Callable[[sqlite3.Connection], T],
        *,
        before_commit: str | None = None,
        after_commit: str | None = None,
        then: Callable[[T], None] | None = None,
    ) -> "asyncio.Future[T]":
        """Run `fn` on the writer thread inside a transaction and give its result once that is durable.

        `fn` sees the raw connection, must not begin, commit or roll back, and may be run again: other callers'
        functions may share the transaction, and if one of them raises, each is run anew in its own. So what it raises
        undoes its own writes only. `then` gets the result after COMMIT, on the writer thread; the other two name
        failpoints. Raises `Refused` if the file was locked, full or read-only, `Indeterminate` if COMMIT itself
        failed."""
        self._check_process()
        request = Request(fn, before_commit, after_commit, then)
        self._writer.submit(request)
        return request.future

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` on a connection that can't write, as the file stands after the last COMMIT. Several statements of
        one `fn` see one state only if it begins a transaction itself. Raises `Refused`."""
        self._check_process()
        if self._writer.replaced:
            # The writer notices by itself, but there may be nothing to write.
            with contextlib.suppress(Refused):
                await self.write(lambda _: None)
        try:
            future = self._readers.submit(self._read, fn)
        except RuntimeError as error:
            raise Refused(f"{self.path}: the database was closed") from error
        return await asyncio.wrap_future(future)

    def findings(self) -> tuple[str, ...]:
        """What an operator should know; nothing of it is unsafe."""
        return findings(self.path)

    def facts(self) -> dict[str, str]:
        """Version, settings, and whether a lock file is needed."""
        facts = {
            "database": self.path,
            "sqlite": sqlite3.sqlite_version,
            "journal_mode": "wal",
            "synchronous": "full",
        }
        if self._lock is not None:
            facts["wal_reset_defect"] = (
                f"present in {sqlite3.sqlite_version}, repaired in 3.51.3, 3.50.7 and 3.44.6; "
                f"writers take turns by {self._lock.path}"
            )
        return facts

    def close(self) -> None:
        """Give up this use; the last one finishes what was submitted and closes the file. Blocks for that."""
        with _registry:
            self.references -= 1
            if self.references > 0 or self.process != os.getpid():
                return
            if _open.get(self.path) is self:
                del _open[self.path]
            self._readers.shutdown()
            for connection in self._connections:
                connection.close()
            self._writer.close()
            if self._lock is not None:
                self._lock.close()

    def _check_process(self) -> None:
        # The threads stayed in the parent: who waited for them would wait for ever.
        if self.process != os.getpid():
            raise Refused(f"{self.path}: it was opened before this process was forked; open it again here")

    def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        try:
            if connection is not None and self._local.generation != self.generation:
                abandon(connection)
                self._connections.remove(connection)
                connection = self._local.connection = None
            if connection is None:
                self._local.generation = self.generation
                connection = self._local.connection = connect_reader(self.path, self._busy_seconds)
                self._connections.append(connection)
            return fn(connection)
        except sqlite3.Error as error:
            if is_environmental(error):
                raise refused(self.path, error) from error
            raise
        finally:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
