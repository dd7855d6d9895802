"""Nothing stays behind: folders of this process go when it ends, servers also when it is killed."""

import atexit
import shutil
import subprocess
from pathlib import Path


def removed_at_exit(folder: Path) -> Path:
    """The folder, which is removed when this process ends in order."""
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Guard:
    """A shell that waits for this process to be gone, then ends a server and removes its folder.

    It reads a pipe that only this process can write to. (The kernel's parent-death signal would do without a process,
    but it watches the thread that started the server, and threads of a pool end long before.)
    """

    def __init__(self, pid: int, folder: Path) -> None:
        script = 'read -r _; kill -QUIT "$1"; sleep 1; kill -KILL "$1"; rm -rf "$2"'
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", script, "guard", str(pid), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """The server has ended: nothing to guard."""
        self._shell.kill()
        self._shell.communicate()
