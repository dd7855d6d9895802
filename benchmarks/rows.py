"""Benchmark results: one row a measurement, printed as a table and kept as JSON."""

import json
import os
import platform
import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.plot import plot

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
    note: str = ""
    """What a reader must know of this measurement."""


@dataclass(frozen=True)
class Verdict:
    """Whether a target was met, and what was measured, in words."""

    words: str
    met: bool


def row(scenario: str, store: str, subject: str, n: int, values: Sequence[float], unit: str, version: str = OWN) -> Row:
    """A row of several measurements of one thing."""
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle if middle else 0.0
    return Row(scenario, store, subject, version, n, round(middle, 3), unit, len(values), round(spread, 3))


def with_ratios(rows: list[Row], peers: Collection[str] = ()) -> list[Row]:
    """Fill `ratio_to_floor` where the same scenario and n has a floor, and `ratio_to_best_peer` where it has one of
    those peers: above 1 is faster, whatever the unit."""
    for each in rows:
        beside = [other for other in rows if (other.scenario, other.n) == (each.scenario, each.n) and other.value]
        if not each.value:
            continue
        floors = [other.value for other in beside if other.subject == "floor"]
        if floors:
            each.ratio_to_floor = _speed(each, floors[0])
        others = [_speed(each, other.value) for other in beside if other.subject in peers]
        if others and each.subject not in peers and each.subject != "floor":
            each.ratio_to_best_peer = min(others)
    return rows


def _speed(row: Row, other: float) -> float:
    """How many times as fast."""
    return round(row.value / other if row.unit.endswith("/s") else other / row.value, 3)


HEADINGS = ("scenario", "subject", "n", "value", "unit", "x floor", "x best peer", "rounds", "spread")


def cells(row: Row) -> tuple[str, ...]:
    """What is shown of a row, under `HEADINGS`."""
    small = 4 if row.value < 0.1 else 2
    return (
        row.scenario,
        row.subject if row.version in ("-", OWN) else f"{row.subject} {row.version}",
        f"{row.n:,}",
        f"{row.value:,.{small}f}" if row.value < 100 else f"{row.value:,.0f}",
        row.unit,
        *("" if ratio is None else f"{ratio:.2f}" for ratio in (row.ratio_to_floor, row.ratio_to_best_peer)),
        str(row.rounds),
        f"{row.spread:.0%}",
    )


def read(store: str, folder: Path) -> list[Row]:
    """The rows of an earlier run; none if there was none."""
    path = folder / f"{store}.json"
    return [Row(**each) for each in json.loads(path.read_text())] if path.exists() else []


def report(
    store: str,
    rows: list[Row],
    folder: Path = BUILD,
    notes: Sequence[str] = (),
    verdicts: Sequence[Verdict] = (),
) -> Path:
    """Print the table and the verdicts, and write `<store>.json` into the folder; elsewhere than in the build folder,
    the same as Markdown and the drains as a plot, too."""
    title = f"{store}: Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores, medians"
    table = Table(title=title)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in {"scenario", "subject", "unit"} else "right")
    for each in rows:
        table.add_row(*cells(each))
    console = Console(width=130)
    console.print(table)
    lines = [*notes, *(f"{each.subject}, {each.scenario}: {each.note}" for each in rows if each.note)]
    lines += [*(f"{'met' if each.met else 'MISSED'}: {each.words}" for each in verdicts)]
    for line in lines:
        console.print(line, highlight=False, markup=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{store}.json"
    path.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n")
    if folder != BUILD:
        text = [f"# {title}", "", f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
        text += [f"| {' | '.join(cells(each))} |" for each in rows]
        text += ["", *(f"- {line}" for line in lines)]
        (folder / f"{store}.md").write_text("\n".join(text) + "\n")
        plot(rows, folder / f"{store}.svg")
    return path
