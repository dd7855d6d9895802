"""Looking at a file before it is opened: for those who must not create or change it."""

import os
import sqlite3

from jobmaster.model.errors import UnsafeStore
from jobmaster.sqlite.connect import BUSY_SECONDS, connect_reader
from jobmaster.sqlite.faults import refused
from jobmaster.sqlite.location import check_location


def check_untouched(path: str) -> bool:
    """Whether opening the file leaves it as it is: false where it would be created, or turned into one of JobMaster's.
    Changes nothing. Raises `Refused` where it could not be opened at all, and `UnsafeStore` where it holds tables of
    JobMaster and has lost WAL since."""
    check_location(path)
    if not os.path.exists(path):
        _check_folder(path)
        return False
    connection = connect_reader(path, BUSY_SECONDS)
    try:
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        ours = connection.execute("SELECT 1 FROM sqlite_master WHERE name GLOB 'jm_*' LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise refused(path, error) from error
    finally:
        connection.close()
    if ours and journal != "wal":
        raise UnsafeStore(
            path,
            "journal_mode",
            journal,
            "stop what has changed it to this and run `jobmaster migrate`, which sets WAL or says why it is refused",
            "readers and the writer would block each other",
        )
    return ours is not None


def prefixes_in(path: str) -> list[str]:
    """The table prefixes of the masters that an existing file holds, sorted. Raises `Refused`."""
    connection = connect_reader(path, BUSY_SECONDS)
    try:
        found = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'jm_*_revision' ORDER BY name"
        ).fetchall()
    except sqlite3.Error as error:
        raise refused(path, error) from error
    finally:
        connection.close()
    return [name.removesuffix("revision") for (name,) in found]


def _check_folder(path: str) -> None:
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise refused(path, sqlite3.OperationalError(f"no permission to write in {folder}"))
