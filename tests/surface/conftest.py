"""A folder, the command in processes of their own, and the command in this process, which is cheaper."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from jobmaster.cli.main import run
from tests.surface.shell import Shell


@dataclass
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


class Cli:
    """`jobmaster …` in this process. What a user would see as a traceback is an exception here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["jobmaster", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            run()
        seen = self._capsys.readouterr()
        code = left.value.code
        return Done(code if isinstance(code, int) else 0, seen.out, seen.err)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """In an empty folder, without settings in the environment; applications of other tests are forgotten."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper().startswith("JOBMASTER_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield Cli(monkeypatch, capsys)
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    structlog.reset_defaults()
