"""A process whose wall clock can be set while it runs, by libfaketime; its monotonic clock goes on as it is."""

from pathlib import Path

from tests.servers.errors import Unavailable
from tests.servers.packages import program
from tests.servers.user import give


def library() -> Path:
    """The library that is preloaded. Raises `Unavailable`."""
    program("faketime", "faketime")
    for folder in ("/usr/lib", "/usr/lib64"):
        for found in sorted(Path(folder).glob("**/faketime/libfaketimeMT.so.1")):
            return found
    raise Unavailable("faketime is installed, but libfaketimeMT.so.1 is not beside it")


class FakeClock:
    """How far the clock of the processes started with `environment` is off, kept in a file that they read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)
        give(file)

    def set(self, seconds: float) -> None:
        """From now on it is that much ahead."""
        self._file.write_text(f"{seconds:+g}s\n")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Read at each call of the clock: else two processes of a server would have different times for a second.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
