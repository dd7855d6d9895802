"""Which files of a folder tree the demonstration works on, and which it leaves out and why."""

import os
import stat
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LEFT_OUT = frozenset({"__pycache__", ".git", "node_modules", "site-packages", "dist-packages"})


def standard_library() -> Path:
    """The running Python's own standard library: some thousands of real files that are everywhere."""
    return Path(sysconfig.get_path("stdlib"))


@dataclass
class Tree:
    """Regular, readable files below a root. `skipped` counts the others by reason, once `files()` was walked."""

    root: Path
    skipped: Counter[str] = field(default_factory=Counter)

    def files(self) -> Iterator[Path]:
        """Every file once, in a stable order. Never opens a FIFO, never follows a link."""
        self.skipped.clear()
        for folder, names, files in os.walk(self.root, followlinks=False, onerror=self._unreadable):
            here = Path(folder)
            for name in [name for name in names if (here / name).is_symlink()]:
                self.skipped["symbolic links"] += 1
                names.remove(name)
            names[:] = sorted(name for name in names if name not in LEFT_OUT)
            for name in sorted(files):
                path = here / name
                if (reason := self._refusal(path)) is None:
                    yield path
                else:
                    self.skipped[reason] += 1

    def _unreadable(self, error: OSError) -> None:
        self.skipped["unreadable folders"] += 1

    def _refusal(self, path: Path) -> str | None:
        try:
            mode = path.lstat().st_mode
            str(path).encode()
        except OSError:
            return "unreadable files"
        except UnicodeEncodeError:
            return "names that are no UTF-8"
        if stat.S_ISLNK(mode):
            return "symbolic links"
        if not stat.S_ISREG(mode):
            return "pipes, sockets and devices"
        return None if os.access(path, os.R_OK) else "unreadable files"
