"""Servers that refuse to run as root run as nobody."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers.leftovers import removed_at_exit


def unprivileged() -> dict[str, Any]:
    """What `subprocess` needs so that a command does not run as root; nothing where we are not root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def run_unprivileged(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end and give what it printed; raises `CalledProcessError`."""
    return subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
        **unprivileged(),
        **options,
    )


def give(path: Path) -> None:
    """Let the unprivileged user own that file or folder."""
    owner = unprivileged()
    if owner:
        os.chown(path, owner["user"], owner["group"])


@cache
def reachable(folder: Path, binary: str) -> Path:
    """The folder of an installation, or a copy of it where the unprivileged user can't run what is in it: a virtual
    environment in root's home, for example."""
    try:
        run_unprivileged([str(folder / binary), "--version"])
    except (OSError, subprocess.CalledProcessError):
        copy = removed_at_exit(Path(tempfile.mkdtemp(prefix="jm-copy-")))
        copy.chmod(0o755)
        shutil.copytree(folder, copy / folder.name, symlinks=True)
        run_unprivileged([str(copy / folder.name / binary), "--version"])
        return copy / folder.name
    return folder
