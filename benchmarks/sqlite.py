"""`make bench-sqlite`: the standalone cluster on SQLite beside a hand-written floor, in one run.

Floor and subject take turns, each measurement in a process of its own on a fresh file, so that a noisy machine hits
both. Prints a table and writes `build/bench/sqlite.json`. Exit 1 if a target is missed, unless --no-targets.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.floors import sqlite_loop
from benchmarks.rows import Row, report, row, with_ratios

STORE = "sqlite"
OURS = "jobmaster-standalone"
TARGETS: tuple[tuple[str, str, float], ...] = (
    ("drain", "at least x floor", 0.2),
    ("enqueue_bulk", "at least x floor", 0.3),
    ("latency_idle", "at most ms", 3.0),
    ("peak_rss", "at most MB", 150.0),
    ("import", "at most ms", 250.0),
    ("idle_cpu", "at most %", 1.0),
)


def ours(what: str, n: int) -> dict[str, Any]:
    """One measurement of `benchmarks.standalone`."""
    command = [sys.executable, "-m", "benchmarks.standalone", "--one", what, "--n", str(n)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def floor(n: int) -> tuple[float, float]:
    """(enqueue, drain) of the floor, in a process of its own."""
    program = (
        "import sys, tempfile; from pathlib import Path; from benchmarks.floors import sqlite_loop as s\n"
        "with tempfile.TemporaryDirectory() as folder: print(*s.run(Path(folder), int(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(n)], check=True, capture_output=True, text=True)
    enqueue, drain = map(float, done.stdout.split())
    return enqueue, drain


def import_ms() -> float:
    """Wall time of `import jobmaster` alone, in a fresh process."""
    program = "import time; t = time.perf_counter(); import jobmaster; print((time.perf_counter() - t) * 1e3)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout)


def single_floor(n: int) -> list[float]:
    """Milliseconds of one durable insert each."""
    import time

    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite_loop.connect(Path(folder) / "single.db")
        connection.executescript(sqlite_loop.SCHEMA)
        values = []
        for number in range(n):
            began = time.perf_counter()
            connection.execute("insert into job values (?, 0, ?, x'7b7d')", (str(number), number))
            values.append((time.perf_counter() - began) * 1e3)
        connection.close()
    return sorted(values)


def measure(sizes: list[int], rounds: int, idle_seconds: int) -> list[Row]:
    rows: list[Row] = []
    for n in sizes:
        floors, drains = [], []
        for _ in range(rounds):
            floors.append(floor(n))
            drains.append(ours("drain", n))
        rows += [
            row("enqueue_bulk", STORE, "floor", n, [enqueue for enqueue, _ in floors], "jobs/s", "-"),
            row("enqueue_bulk", STORE, OURS, n, [found["enqueue_per_s"] for found in drains], "jobs/s"),
            row("drain", STORE, "floor", n, [drain for _, drain in floors], "jobs/s", "-"),
            row("drain", STORE, OURS, n, [found["drain_per_s"] for found in drains], "jobs/s"),
            row("peak_rss", STORE, OURS, n, [found["rss_mb"] for found in drains], "MB"),
        ]
    latencies = [ours("latency", 300) for _ in range(rounds)]
    singles = [single_floor(300)[150] for _ in range(rounds)]
    rows += [
        row("enqueue_single", STORE, "floor", 300, singles, "ms p50", "-"),
        row("enqueue_single", STORE, OURS, 300, [found["enqueue_p50_ms"] for found in latencies], "ms p50"),
        row("latency_idle", STORE, OURS, 300, [found["p50_ms"] for found in latencies], "ms p50"),
        row("result_after_end", STORE, OURS, 300, [found["result_p50_ms"] for found in latencies], "ms p50"),
        row("import", STORE, OURS, 1, [import_ms() for _ in range(rounds)], "ms"),
    ]
    if idle_seconds:
        idle = ours("idle", idle_seconds)
        rows.append(row("idle_cpu", STORE, OURS, idle_seconds, [idle["idle_share"] * 100], "% of a core"))
    return with_ratios(rows)


def missed(rows: list[Row]) -> list[str]:
    """The targets that were not reached, in words."""
    found = []
    for scenario, kind, bound in TARGETS:
        for each in rows:
            if each.scenario != scenario or each.subject != OURS:
                continue
            value = each.ratio_to_floor if "floor" in kind else each.value
            assert value is not None, each
            if (value < bound) if kind.startswith("at least") else (value > bound):
                found.append(f"{scenario} at n = {each.n:,}: {value:.2f}, target {kind} {bound}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", default="20000,100000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=60, help="seconds of idling; 0 leaves it out")
    parser.add_argument("--no-targets", action="store_true")
    options = parser.parse_args()
    rows = measure([int(n) for n in options.n.split(",")], options.rounds, options.idle)
    print(f"wrote {report(STORE, rows)}")
    faults = missed(rows)
    for fault in faults:
        print(f"missed: {fault}")
    if faults and not options.no_targets:
        sys.exit(1)


if __name__ == "__main__":
    main()
