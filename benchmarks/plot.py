"""The plot of a benchmark: jobs per second of every subject, by scenario and number of jobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.rows import Row

SHOWN = ("drain", "enqueue_bulk")
COLOURS = {"floor": "#9aa0a6", "jobmaster-standalone": "#1a73e8", "jobmaster-split": "#8ab4f8"}
PEER = "#e8a33d"


def plot(rows: "Sequence[Row]", path: Path) -> bool:
    """Write it as SVG; False where matplotlib (the extra `bench`) is not installed or there is nothing to show."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "jobmaster"
    from matplotlib import pyplot

    parts = sorted({(each.scenario, each.n) for each in rows if each.scenario in SHOWN and each.subject == "floor"})
    if not parts:
        return False
    figure, axes = pyplot.subplots(1, len(parts), figsize=(4.5 * len(parts), 3.6), squeeze=False)
    for axis, (scenario, n) in zip(axes[0], parts, strict=True):
        shown = sorted((r for r in rows if (r.scenario, r.n) == (scenario, n)), key=lambda each: each.value)
        names = [each.subject for each in shown]
        bars = axis.barh(names, [r.value for r in shown], color=[COLOURS.get(name, PEER) for name in names])
        axis.bar_label(bars, labels=[f" {each.value:,.0f}" for each in shown], fontsize=8)
        axis.set_title(f"{scenario}, {n:,} jobs (jobs/s)", fontsize=10)
        axis.margins(x=0.2)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True
