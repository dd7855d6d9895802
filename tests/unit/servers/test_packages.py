"""A program that is missing is installed once, whoever else looks for it at the same time."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
APT = """#!/bin/sh
mkdir "$0.busy" || { echo "could not get the lock" >&2; exit 100; }
case "$*" in
*install*)
    echo installed >> "$0.log"
    printf '#!/bin/sh\\n' > "${0%/*}/thing"
    chmod +x "${0%/*}/thing" ;;
*)
    sleep 0.2 ;;
esac
rmdir "$0.busy"
"""
PROGRAM = """
import os
os.geteuid = lambda: 0
from tests.servers.packages import program
print(program("thing", "thing"))
"""


def test_several_processes_do_not_install_at_once(tmp_path: Path) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text(APT)
    apt.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    found = [process.communicate(timeout=30)[0].strip() for process in processes]

    assert found == [str(tmp_path / "thing")] * 3
    assert (tmp_path / "apt-get.log").read_text() == "installed\n"
