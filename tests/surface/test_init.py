"""`jobmaster init`, and what it wrote, run as it is."""

from pathlib import Path

import pytest

from tests.surface.conftest import Cli
from tests.surface.shell import Shell, interrupted


def test_what_init_wrote_runs_and_gives_a_result_to_another_process(shell: Shell) -> None:
    assert shell("init").returncode == 0

    with shell.running("run") as process:
        asked = shell.python("app.py")
        code, rest = interrupted(process)

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines()[-1] == "welcome, user_123"
    assert (code, "draining" in rest, rest.splitlines()[-1]) == (0, True, "stopped")


def test_init_says_what_it_wrote_and_what_comes_next(cli: Cli, tmp_path: Path) -> None:
    done = cli("init", "a new folder")

    assert done.code == 0
    assert done.out.splitlines()[:2] == ["wrote a new folder/app.py", "wrote a new folder/jobmaster.toml"]
    assert "jobmaster run" in done.out
    assert {path.name for path in (tmp_path / "a new folder").iterdir()} == {"app.py", "jobmaster.toml"}


@pytest.mark.parametrize("taken", ["app.py", "jobmaster.toml"])
def test_init_overwrites_nothing_and_then_writes_nothing(cli: Cli, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")

    done = cli("init")

    assert done.code == 2
    assert f"{taken} is there already" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_init_into_what_is_no_folder_names_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    done = cli("init", "file/app")

    assert done.code == 2
    assert "file/app" in done.err
