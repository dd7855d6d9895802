"""Connections with the settings that JobMaster's promises need, read back."""

import contextlib
import os
import sqlite3
import stat
import sys
from urllib.parse import quote

from jobmaster.model.errors import UnsafeStore
from jobmaster.sqlite.faults import refused

BUSY_SECONDS = 5.0
CACHE_KIB = 32_768
_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")


def connect_writer(path: str, busy_seconds: float) -> sqlite3.Connection:
    """The one connection of this process that writes: WAL, synchronous FULL, no checkpoints by itself, transactions
    only where it is told. A new file is readable by its owner alone. Raises `UnsafeStore` or `Refused`."""
    # Never opened by hand once it exists: closing that would drop the locks of every connection of this process.
    with contextlib.suppress(FileExistsError, PermissionError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection = _connect(f"file:{quote(path)}?mode=rw", path, busy_seconds)
    try:
        journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = FULL")
        if sys.platform == "darwin":
            # There fsync leaves the data in the disk's own cache.
            connection.execute("PRAGMA fullfsync = ON")
            connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA secure_delete = OFF")
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
        if journal != "wal":
            raise UnsafeStore(
                path,
                "journal_mode",
                journal,
                "put the file on a local disk whose file system supports shared memory",
                "readers and the writer would block each other",
            )
        if synchronous < 2:
            raise UnsafeStore(
                path,
                "synchronous",
                _SYNCHRONOUS[synchronous],
                "use an SQLite that accepts FULL",
                "a power cut would lose acknowledged jobs",
            )
    except sqlite3.Error as error:
        connection.close()
        raise refused(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: str, busy_seconds: float) -> sqlite3.Connection:
    """A connection that can't write. Raises `Refused`."""
    connection = _connect(f"file:{quote(path)}?mode=ro", path, busy_seconds)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connect(uri: str, path: str, busy_seconds: float) -> sqlite3.Connection:
    connection = None
    try:
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        for setting in (
            "foreign_keys = ON",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "temp_store = MEMORY",
            f"cache_size = -{CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {setting}")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise refused(path, error) from error
    return connection


def findings(path: str) -> tuple[str, ...]:
    """What an operator should know about the file; nothing of it is unsafe for the jobs."""
    others = stat.S_IMODE(os.stat(path).st_mode) & 0o077
    return (f"{path} can be read by other users; run chmod 600 on it",) if others else ()
