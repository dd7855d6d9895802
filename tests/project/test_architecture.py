"""ARCHITECTURE.md shows what the code says."""

from pathlib import Path

from jobmaster.model.states import diagram

ROOT = Path(__file__).resolve().parents[2]


def test_the_state_diagram_is_the_table_of_moves() -> None:
    assert f"```mermaid\n{diagram()}```\n" in (ROOT / "ARCHITECTURE.md").read_text()
