"""Rules about files that no linter here knows."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 500
MACHINE_PATH = re.compile(r"/(?:work|farm|root)/|/tmp/[a-z]")
SLEEP = re.compile(r"\b(?:asyncio|time|anyio)\.sleep\((?!0\))")


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def lines_of(paths: list[Path]) -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(ROOT)), line)
        for path in paths
        if path != Path(__file__).resolve()
        for line in path.read_text().splitlines()
    ]


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in tracked("*.py", "*.sql")}
    assert len(lengths) > 30
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_the_agents_folder_is_no_package() -> None:
    # An installed package of that name would be shadowed by ours, and ours by it.
    assert not (ROOT / "agents" / "__init__.py").exists()


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    texts = tracked("*.py", "*.md", "*.toml", "*.yaml", "*.yml", "*.sh", "Makefile", ".ci/run")
    assert {f"{name}: {line.strip()}" for name, line in lines_of(texts) if MACHINE_PATH.search(line)} == set()


def test_tests_wait_for_facts_and_not_for_time() -> None:
    # A handler under test may sleep, as it stands for work: it says so on its line.
    found = {
        f"{name}: {line.strip()}"
        for name, line in lines_of(tracked("tests/*.py"))
        if SLEEP.search(line) and name != "tests/support.py" and "the handler's work" not in line
    }
    assert found == set()
