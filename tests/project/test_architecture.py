"""Generated parts of the documentation say what the code says: `make docs` writes them."""

from pathlib import Path

from jobmaster.model.states import diagram
from jobmaster.settings.table import settings_table

ROOT = Path(__file__).resolve().parents[2]


def test_the_state_diagram_is_the_table_of_moves() -> None:
    assert f"```mermaid\n{diagram()}```\n" in (ROOT / "ARCHITECTURE.md").read_text()


def test_the_table_of_settings_is_generated() -> None:
    assert f"<!-- settings -->\n\n{settings_table()}\n<!-- end -->" in (ROOT / "docs" / "settings.md").read_text()
