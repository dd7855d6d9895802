"""Every failpoint of the list is in the code."""

import re
from pathlib import Path

from jobmaster.telemetry.failpoints import NAMES

ROOT = Path(__file__).resolve().parents[2]
QUOTED = re.compile(r"""["']([a-z]+\.[a-z_]+)["']""")


def names_in(*folders: str) -> set[str]:
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "failpoints.py"]
    return {name for path in files for name in QUOTED.findall(path.read_text())} & set(NAMES)


def test_every_listed_failpoint_is_in_the_code() -> None:
    assert set(NAMES) - names_in("jobmaster", "agents") == set()
