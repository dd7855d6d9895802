"""Both type checkers agree on the public API: what is right passes, and every mistake that is marked is one.

An ignored line that is no error any more is an error itself, in either checker, so the marks can't rot.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = [str(HERE / "handlers.py"), str(HERE / "enqueue.py")]


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mypy_agrees() -> None:
    assert run("mypy", "--strict", "--warn-unused-ignores", *FILES) == ""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pyright_agrees() -> None:
    assert run("pyright", "--pythonpath", sys.executable, "-p", str(HERE)) == ""
