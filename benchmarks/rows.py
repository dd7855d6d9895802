"""Benchmark results: one row a measurement, printed as a table and kept as JSON."""

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

BUILD = Path("build/bench")
OWN = version("jobmaster-runtime")


@dataclass
class Row:
    """The median of `rounds` measurements. `spread` is (max - min) / median; ratios are None where there is no floor
    or peer in the same run."""

    scenario: str
    store: str
    subject: str
    version: str
    n: int
    value: float
    unit: str
    rounds: int
    spread: float
    ratio_to_floor: float | None = None
    ratio_to_best_peer: float | None = None


def row(scenario: str, store: str, subject: str, n: int, values: Sequence[float], unit: str, version: str = OWN) -> Row:
    """A row of several measurements of one thing."""
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle if middle else 0.0
    return Row(scenario, store, subject, version, n, round(middle, 3), unit, len(values), round(spread, 3))


def with_ratios(rows: list[Row]) -> list[Row]:
    """Fill `ratio_to_floor` where the same scenario and n has a floor: above 1 is faster than the floor, whatever the
    unit."""
    floors = {(r.scenario, r.n): r for r in rows if r.subject == "floor"}
    for each in rows:
        floor = floors.get((each.scenario, each.n))
        if floor is not None and each.value and floor.value:
            rate = each.unit.endswith("/s")
            each.ratio_to_floor = round(each.value / floor.value if rate else floor.value / each.value, 3)
    return rows


def report(store: str, rows: list[Row]) -> Path:
    """Print the table and write `build/bench/<store>.json`."""
    table = Table(title=f"{store}: Python {platform.python_version()}, {platform.system()}, medians")
    for heading in ("scenario", "subject", "n", "value", "unit", "x floor", "rounds", "spread"):
        table.add_column(heading, justify="left" if heading in {"scenario", "subject", "unit"} else "right")
    for each in rows:
        ratio = "" if each.ratio_to_floor is None else f"{each.ratio_to_floor:.2f}"
        table.add_row(
            each.scenario,
            each.subject,
            f"{each.n:,}",
            f"{each.value:,.2f}" if each.value < 100 else f"{each.value:,.0f}",
            each.unit,
            ratio,
            str(each.rounds),
            f"{each.spread:.0%}",
        )
    Console(width=110).print(table)
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{store}.json"
    path.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    return path
