"""The file lock that lets one process at a time write or checkpoint, where SQLite's own locks are not enough.

SQLite 3.7.0 to 3.51.2 may corrupt a file when one connection commits while another one checkpoints and resets the
write-ahead log. On those versions every writer takes this lock first; readers never need it.
"""

import fcntl
import os
import random
import time

from jobmaster.model.errors import Refused

_TURN, _WRITE = 1, 0


def has_wal_reset_defect(version: tuple[int, int, int]) -> bool:
    """Whether this version of SQLite has the defect. 3.44.6 and 3.50.7 carry the repair of 3.51.3."""
    repaired = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    return version >= (3, 7, 0) and not repaired


class FileLock:
    """An exclusive lock between processes, fair to a waiting one.

    Byte 1 is the turnstile: who wants to write holds it until it has byte 0. Without it a busy process would take the
    lock again microseconds after giving it back, and the others would starve between their polls. The locks are the
    process's own, so one process may hold only one `FileLock` per file, and a crash frees it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self, seconds: float) -> None:
        """Hold it. Raises `Refused` if others kept it for `seconds`."""
        deadline = time.monotonic() + seconds
        self._take(_TURN, deadline)
        try:
            self._take(_WRITE, deadline)
        finally:
            self._give(_TURN)

    def release(self) -> None:
        """Give it back."""
        self._give(_WRITE)

    def close(self) -> None:
        os.close(self._file)

    def _take(self, byte: int, deadline: float) -> None:
        pause = 0.0005
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    raise Refused(
                        f"{self.path}: another process has been writing for too long; "
                        "it goes on by itself once that process is done"
                    ) from None
            else:
                return
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads waiters, hides nothing
            pause = min(pause * 1.5, 0.01)

    def _give(self, byte: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
