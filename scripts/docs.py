"""Write the generated parts of the documentation: the state diagram and the table of settings."""

import re
from pathlib import Path

from jobmaster.model.states import diagram
from jobmaster.settings.table import settings_table

ROOT = Path(__file__).resolve().parents[1]
DIAGRAM = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
TABLE = re.compile(r"(<!-- settings -->\n\n).*?(\n<!-- end -->)", re.DOTALL)


def main() -> None:
    architecture = ROOT / "ARCHITECTURE.md"
    architecture.write_text(DIAGRAM.sub(lambda _: f"```mermaid\n{diagram()}```\n", architecture.read_text(), count=1))
    settings = ROOT / "docs" / "settings.md"
    settings.write_text(TABLE.sub(lambda found: f"{found[1]}{settings_table()}{found[2]}", settings.read_text()))


if __name__ == "__main__":
    main()
