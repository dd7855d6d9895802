"""Which file a path leads to: noticing that a database was replaced under its open connections.

A connection goes on in the file it has opened, also when another one stands in its place: what it commits then is lost
with the last descriptor. So the path is looked at before every transaction and every read.
"""

import contextlib
import ctypes
import os
import sqlite3

Identity = tuple[int, int]

LOG_SUFFIXES = ("-wal", "-shm")


def identity(path: str) -> Identity | None:
    """What tells the file at this path from any other; None if nothing is there, or nothing in it."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found.st_size else None


def abandon(connection: sqlite3.Connection) -> None:
    """Never close this connection, not even when the process ends: its file was replaced, and the last connection to
    a file removes the log beside it by name, which is somebody else's by now."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def remove_log(path: str, log: int) -> None:
    """Remove the log of a file that was replaced, if the one beside its path still is the one behind the descriptor
    `log`: its pages do not belong to what stands there now, and would be taken for its."""
    with contextlib.suppress(OSError):
        ours, there = os.fstat(log), os.stat(f"{path}-wal")
        if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
            for suffix in LOG_SUFFIXES:
                with contextlib.suppress(OSError):
                    os.unlink(f"{path}{suffix}")
