"""What docs/schedules.md says is so: each expression of its tables, and each line that a command is said to print."""

import re
import shlex
from pathlib import Path

import pytest

from jobmaster.recurrence import Recurrence
from jobmaster.recurrence.words import describe
from tests.surface.conftest import Cli

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "schedules.md").read_text()
TABLE = re.compile(r"^\| (?:expression|text) \| means \|\n\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE)
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \|$", re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
MEANINGS = [row for table in TABLE.findall(PAGE) for row in ROW.findall(table)]


def commands() -> list[tuple[str, str]]:
    """(command, what it prints)."""
    blocks = "".join(CONSOLE.findall(PAGE)).split("$ ")[1:]
    return [(command, printed) for command, _, printed in (block.partition("\n") for block in blocks)]


def test_there_is_something_to_compare() -> None:
    assert len(MEANINGS) > 50
    assert len(commands()) > 5


@pytest.mark.parametrize(("expression", "words"), MEANINGS)
def test_an_expression_means_what_the_page_says(expression: str, words: str) -> None:
    assert describe(Recurrence.of(expression)) == words


@pytest.mark.parametrize(("command", "printed"), commands())
def test_a_command_prints_what_the_page_says(cli: Cli, command: str, printed: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "jobmaster"
    assert cli(*arguments).out == printed
