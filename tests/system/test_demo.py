"""The demonstration, as a user runs it: real processes, interrupted and killed."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
FILES = 60


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBMASTER_")}
    return {**clean, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")])}


def demo(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobmaster", "demo", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=SECONDS)


@contextmanager
def running(tree: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A demonstration whose first line of progress has been seen."""
    command = [sys.executable, "-m", "jobmaster", "demo", str(tree)]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("files "):
                break
        else:
            raise AssertionError("the demonstration ended without a line of progress")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number in range(FILES):
        path = root / f"folder{number % 3}" / f"file{number:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"line one\nline two of {number}\n")
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to(root / "nowhere")
    return root


def finished(output: str, *, films_in_order: bool = True) -> None:
    assert re.search(rf"files succeeded +│ {FILES - 1} ", output), output
    assert re.search(r"files failed +│ 1 ", output), output
    assert "retried: file000.txt succeeded at attempt 3" in output
    assert "dead letter: file003.txt ended failed(exhausted)" in output
    films = next(line for line in output.splitlines() if line.startswith("films in the order they finished"))
    assert films.count("(HIGH)") == 3
    assert films.count("(MEDIUM)") == 2
    if films_in_order:
        assert films.rindex("(HIGH)") < films.index("(MEDIUM)")


def test_it_runs_to_its_end_and_begins_anew(tree: Path, tmp_path: Path) -> None:
    first = demo(tree, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    finished(first.stdout)
    assert "1 pipes, sockets and devices" in first.stdout
    assert "2 symbolic links" in first.stdout

    failed = next(
        line.partition("jobs show ")[2].split()[0] for line in first.stdout.splitlines() if "jobs show" in line
    )
    shown = subprocess.run(
        [sys.executable, "-m", "jobmaster", "jobs", "show", failed, "--file", "demo.db"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("Traceback (most recent call last)") == 3
    assert f"jobmaster jobs retry {failed} --file demo.db" in shown.stdout

    second = demo(tree, folder=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "one job for each of" in second.stdout
    finished(second.stdout)


def test_after_an_interruption_it_goes_on_where_it_stopped(tree: Path, tmp_path: Path) -> None:
    with running(tree, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(SECONDS) == 130
    assert "draining" in rest
    again = demo(tree, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on with the unfinished batch" in again.stdout
    finished(again.stdout)


def test_after_a_kill_it_goes_on_where_it_stopped(tree: Path, tmp_path: Path) -> None:
    with running(tree, tmp_path) as process:
        process.kill()
        assert process.wait(SECONDS) == -signal.SIGKILL
    again = demo(tree, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on with the unfinished batch" in again.stdout
    # Those that ran when it was killed are leased until somebody looks, and then run one at a time.
    finished(again.stdout, films_in_order=False)


def test_names_of_files_are_shown_as_they_are_and_do_nothing(tmp_path: Path) -> None:
    root = tmp_path / "[bold] a\ttree"
    folder = root / os.fsdecode(b"no \xff text")
    folder.mkdir(parents=True)
    (folder / "in it").write_text("left out")
    for name in ("[red]x", "\x1b[31m\u202e", "a b", ":smile:"):
        (root / name).write_text("a line\n")

    done = demo(root, "--file", "the demo's.db", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "one job for each of 4 files" in done.stdout
    assert "[bold] a\\ttree (left out: 1 names that are no UTF-8)" in done.stdout
    assert "│ [red]x " in done.stdout
    assert "│ \\x1b[31m\\u202e " in done.stdout
    assert """--file 'the demo'"'"'s.db'""" in done.stdout


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    done = demo("nowhere", folder=tmp_path)
    assert done.returncode == 2
    assert "'nowhere' does not exist" in done.stderr


def test_an_empty_folder_is_no_fault(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = demo(empty, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
