"""The writer: the one thread of a process that writes to a database file.

Whatever is waiting when a transaction begins shares it, and so its one fsync; if one of the functions fails, each
gets a transaction of its own. Callers are answered after COMMIT, with one wake-up per event loop. The thread also
checkpoints, between transactions, and looks for changes by other processes while somebody waits for them.
"""

import asyncio
import contextlib
import os
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jobmaster.model.errors import Indeterminate, Refused
from jobmaster.sqlite.connect import connect_writer
from jobmaster.sqlite.faults import FULL, is_busy, is_environmental, primary_code, refused
from jobmaster.sqlite.identity import abandon, identity, remove_log
from jobmaster.sqlite.lock import FileLock
from jobmaster.telemetry.failpoints import failpoint
from jobmaster.waking import Hints

CHECKPOINT_FRAMES = 4_000
"""Pages in the write-ahead log at which they are copied into the file."""

LONG_FRAMES = 2 * CHECKPOINT_FRAMES
"""Pages at which the writer waits a little for readers, so that the log can start again."""

RESTART_SECONDS = 1.0
"""How often it does so, at most."""


class Request:
    """One function to run, and whom to tell."""

    __slots__ = ("after_commit", "before_commit", "error", "fn", "future", "loop", "result", "then")

    def __init__(
        self,
        fn: Callable[[sqlite3.Connection], Any],
        before_commit: str | None,
        after_commit: str | None,
        then: Callable[[Any], None] | None,
    ) -> None:
        self.fn = fn
        self.before_commit = before_commit
        self.after_commit = after_commit
        self.then = then
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def answer(self) -> None:
        """On the caller's loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Owns the writing connection and its thread."""

    def __init__(self, path: str, busy_seconds: float, lock: FileLock | None) -> None:
        self.path = path
        self.hints = Hints(self._nudge)
        self._busy_seconds = busy_seconds
        self._lock = lock
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._closing = False
        self._closed = threading.Lock()
        self._data_version = 0
        self._looked_at = 0.0
        self._restarted_at = 0.0
        self._wal = -1
        self.generation = 0
        """Up by one whenever the file was found replaced."""
        with self._file_lock():
            self._connection = connect_writer(path, busy_seconds)
            self._opened()
        self._frame = 24 + int(self._connection.execute("PRAGMA page_size").fetchone()[0])
        self._thread = threading.Thread(target=self._run, name=f"sqlite-writer {os.path.basename(path)}", daemon=True)
        self._thread.start()

    @property
    def replaced(self) -> bool:
        """Whether the path leads to another file than the connection."""
        return identity(self.path) != self._identity

    def submit(self, request: Request) -> None:
        """Have it run. After `close` it is answered as refused."""
        with self._closed:
            closing = self._closing
            if not closing:
                self._queue.put(request)
        if closing:
            request.error = Refused(f"{self.path}: the database was closed")
            request.answer()

    def close(self) -> None:
        """Finish what was submitted, then close the connection; blocks for that. A second call does nothing."""
        with self._closed:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    def _nudge(self) -> None:
        self._queue.put(None)

    def _run(self) -> None:
        while batch := self._next():
            self._transact(batch)
        # The last connection to a file checkpoints as it closes.
        with contextlib.suppress(Refused), self._file_lock():
            self._connection.close()
        self._connection.close()
        if self._wal >= 0:
            os.close(self._wal)

    def _next(self) -> list[Request]:
        """What waits, at least one; empty once closed."""
        batch: list[Request] = []
        while not batch:
            # What `close` put in the queue to wake this thread may have been taken out together with the last batch.
            if self._closing and self._queue.empty():
                return batch
            poll = self.hints.poll_seconds
            if poll is not None and time.monotonic() - self._looked_at > poll:
                self._look()
            with contextlib.suppress(queue.Empty):
                first = self._queue.get(timeout=poll)
                while True:
                    if first is not None and not first.future.cancelled():
                        batch.append(first)
                    first = self._queue.get_nowait()
        return batch

    def _look(self) -> None:
        """Tell those who wait if another process has committed since the last look."""
        self._looked_at = time.monotonic()
        with contextlib.suppress(sqlite3.Error):
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            self.hints.look(version != self._data_version)
            self._data_version = version

    def _transact(self, batch: list[Request]) -> None:
        """Run the batch in one transaction; one by one if something among it took the whole transaction down."""
        try:
            with self._file_lock():
                if self.replaced:
                    self._reconnect()
                self._begin()
                whole = self._apply(batch)
                if whole:
                    self._commit(batch)
                    self._finish(batch)
                    self._checkpoint()
        except Refused as error:
            self._fail(batch, error)
        except Exception as error:
            # Nothing that goes wrong here may take the thread, and with it every later write, along.
            self._roll_back()
            self._fail(batch, error)
        else:
            if not whole:
                for request in batch:
                    request.error = None
                    self._transact([request])

    def _opened(self) -> None:
        """Note which file this is, and have its log at hand."""
        self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        self._identity = identity(self.path)
        if self._wal >= 0:
            os.close(self._wal)
            self._wal = -1
        with contextlib.suppress(OSError):
            self._wal = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)

    def _reconnect(self) -> None:
        """The file was replaced: take the one that is there now, and refuse what was meant for the other."""
        abandon(self._connection)
        if self._wal >= 0:
            remove_log(self.path, self._wal)
        self._connection = connect_writer(self.path, self._busy_seconds)
        self._opened()
        self.generation += 1
        raise Refused(f"{self.path}: the file was replaced by another one; nothing is written before it is looked at")

    def _begin(self) -> None:
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                # Some kinds of busy are answered at once, whatever the busy timeout says.
                if not is_busy(error) or time.monotonic() > deadline:
                    raise refused(self.path, error) from error
                time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - spreads waiters, hides nothing
            else:
                return

    def _apply(self, batch: Sequence[Request]) -> bool:
        """Run each function. False if one of several failed: nothing is applied then, and each gets a transaction of
        its own."""
        connection = self._connection
        for request in batch:
            try:
                request.result = request.fn(connection)
                if request.before_commit is not None:
                    failpoint(request.before_commit)
            except BaseException as error:
                if len(batch) > 1:
                    # No savepoints: failures are rare, and each statement costs every job a turn of the interpreter.
                    self._roll_back()
                    return False
                request.error = (
                    refused(self.path, error) if isinstance(error, sqlite3.Error) and is_environmental(error) else error
                )
        return True

    def _commit(self, batch: Sequence[Request]) -> None:
        if all(request.error is not None for request in batch):
            self._roll_back()
            return
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            if is_busy(error) or primary_code(error) == FULL:
                # The commit record is written last, so it can't be in the log.
                raise refused(self.path, error) from error
            problem = Indeterminate(f"{self.path}: writing the log failed at COMMIT ({error}); check the disk")
            for request in batch:
                request.error = request.error or problem

    def _finish(self, batch: Sequence[Request]) -> None:
        """After COMMIT: hints first, then the answers, in one call per loop."""
        loops: dict[asyncio.AbstractEventLoop, list[Request]] = {}
        for request in batch:
            if request.error is None:
                try:
                    if request.after_commit is not None:
                        failpoint(request.after_commit)
                    if request.then is not None:
                        request.then(request.result)
                except Exception as error:
                    request.error = error
            loops.setdefault(request.loop, []).append(request)
        for loop, requests in loops.items():
            # A loop that was closed has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_answer, requests)

    def _fail(self, batch: Sequence[Request], error: Exception) -> None:
        for request in batch:
            request.error = request.error or error
        self._finish(batch)

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _checkpoint(self) -> None:
        if not self._log_holds(CHECKPOINT_FRAMES):
            return
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            # A reader that stays keeps the log from starting again: no use asking at every commit.
            if self._log_holds(LONG_FRAMES) and time.monotonic() - self._restarted_at > RESTART_SECONDS:
                self._restarted_at = time.monotonic()
                self._connection.execute("PRAGMA busy_timeout = 50")
                self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                self._connection.execute(f"PRAGMA busy_timeout = {round(self._busy_seconds * 1000)}")

    def _log_holds(self, frames: int) -> bool:
        """Whether the log's present run has that many frames. The file's size does not tell, as the log is written
        over from its start after a checkpoint: a frame belongs to the run if it carries the salt of the header."""
        if self._wal < 0:
            self._opened()
            if self._wal < 0:
                return False
        salt = os.pread(self._wal, 8, 16)
        return len(salt) == 8 and os.pread(self._wal, 8, 32 + (frames - 1) * self._frame + 8) == salt

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        self._lock.acquire(self._busy_seconds)
        try:
            yield
        finally:
            self._lock.release()


def _answer(requests: Sequence[Request]) -> None:
    for request in requests:
        request.answer()
