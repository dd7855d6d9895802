"""Programs from Debian's packages, installed where we may."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers.errors import Unavailable

SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 120
"""Seconds that apt waits for another one, such as the system's own updates."""


def program(name: str, package: str) -> Path:
    """Where the program is; its package is installed by apt when absent and we are root. Raises `Unavailable`."""
    if found := _find(name):
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Unavailable(f"no {name}: install Debian's package {package}")
    with _one_at_a_time():
        if found := _find(name):
            return found
        _install(name, package)
    if found := _find(name):
        return found
    raise Unavailable(f"no {name}, although the package {package} is installed")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Tests run in several processes, and apt refuses to work while another one does."""
    with open(Path(tempfile.gettempdir()) / "jm-apt.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(name: str, package: str) -> None:
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    patient = ("-o", f"DPkg::Lock::Timeout={PATIENCE}")
    for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", package]):
        line = ["apt-get", *patient, *command]
        run = subprocess.run(line, env=quiet, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if run.returncode != 0:
            raise Unavailable(f"no {name}: apt-get {command[0]} failed: {run.stderr.strip()[-500:]}")


def _find(name: str) -> Path | None:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM}")
    return None if found is None else Path(found)
