"""Every code block of the documentation runs.

Blocks of one file share a folder and run in their order. `python` blocks are whole programs; `toml` blocks are written
to `jobmaster.toml` there and must load; `console` blocks hold commands behind `$ `: those of `jobmaster` and `python`
run, those of `make`, `pip` and `git` are checked against what they name. A block that can't be run here is of kind
`text`. A page that speaks of `DATABASE_URL` gets an empty database on Postgres by that name, and one that speaks of
`MYSQL_URL` one on MariaDB; `NATS_URL` and `NATS_MONITOR` are where a NATS server and its monitoring are.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("agents/*.md")])
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
KINDS = {"python", "toml", "console", "text", "mermaid"}
SECONDS = 90
DATABASES = {
    "DATABASE_URL": "postgres_url",
    "MYSQL_URL": "mysql_url",
    "NATS_URL": "nats_url",
    "NATS_MONITOR": "nats_monitor",
}


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind, body) for kind, body in BLOCK.findall(page.read_text())]


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "agents")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOBMASTER_")}
    return {**clean, **(given or {}), "PYTHONPATH": os.pathsep.join(paths), "PATH": path, "NO_COLOR": "1"}


def run(command: list[str], folder: Path, given: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, env=environment(given), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


def check_named(words: list[str]) -> None:
    """Commands that are not run: what they name must exist."""
    if words[0] == "make":
        targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line}
        assert all(word in targets or "=" in word for word in words[1:]), words
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.search(r"\.\[([a-z,]+)\]", words[-1])
        assert words[-1] == "." or (named and set(named[1].split(",")) <= set(extras)), words
    else:
        assert words[0] in {"git", "cd"}, f"{shlex.join(words)}: no rule for this command"


def test_there_are_pages_to_check() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= {page.name for page in PAGES}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text()
    databases = {name: request.getfixturevalue(fixture) for name, fixture in DATABASES.items() if name in text}
    for number, (kind, body) in enumerate(blocks(page)):
        assert kind in KINDS, f"{page.name}: block {number} is of kind {kind!r}"
        if kind == "python":
            program = tmp_path / f"block_{number}.py"
            program.write_text(body)
            run([sys.executable, "-W", "error", str(program)], tmp_path, databases)
        elif kind == "toml":
            (tmp_path / "jobmaster.toml").write_text(body)
            loading = "from jobmaster import ClusterBuilder; ClusterBuilder.from_toml('jobmaster.toml').build()"
            run([sys.executable, "-c", loading], tmp_path)
        elif kind == "console":
            for line in body.splitlines():
                if not line.startswith("$ "):
                    continue
                words = shlex.split(line[2:], comments=True)
                if words[0] == "jobmaster":
                    run([sys.executable, "-m", "jobmaster", *words[1:]], tmp_path)
                elif words[0] == "python":
                    run([sys.executable, *words[1:]], tmp_path)
                else:
                    check_named(words)
