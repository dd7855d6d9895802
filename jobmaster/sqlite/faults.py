"""SQLite's errors in words that name the file, what is wrong with it, and what to do."""

import sqlite3

from jobmaster.model.errors import Refused

BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB = 5, 6, 7, 8, 9, 10, 11, 13, 14, 26

_WORDS = {
    BUSY: "it is locked by another process; it goes on by itself once that process is done",
    LOCKED: "it is locked by another process; it goes on by itself once that process is done",
    NOMEM: "there is not enough memory; free some",
    READONLY: "it can't be written; give this user write permission on the file and its folder",
    INTERRUPT: "the statement was interrupted; repeat it",
    IOERR: "reading or writing it failed; check the disk",
    CORRUPT: "it is damaged; restore it from a backup, after `PRAGMA integrity_check`",
    FULL: "the disk is full, or PRAGMA max_page_count is reached; free space or raise the limit",
    CANTOPEN: "it can't be opened; check the permissions of the file and its folder",
    NOTADB: "it is not an SQLite database; name another file",
}


_NO_TABLE = "no such table"


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without the extension; 0 where the module itself raised."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_environmental(error: BaseException) -> bool:
    """Whether the file or the machine is at fault, not the statement. Tables do not go by themselves: where one is
    missing that was there, somebody has emptied or replaced the file."""
    return isinstance(error, sqlite3.Error) and (primary_code(error) in _WORDS or _NO_TABLE in str(error))


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the file."""
    return primary_code(error) in (BUSY, LOCKED)


def refused(path: str, error: sqlite3.Error) -> Refused:
    """What to raise for an error after which nothing of the call is applied."""
    code = primary_code(error)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    gone = "its tables are gone, it was emptied or replaced; open it again, which makes them anew"
    words = gone if _NO_TABLE in str(error) else _WORDS.get(code, "the call failed")
    return Refused(f"{path}: {words} ({name}: {error})")
