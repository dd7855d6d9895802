"""`make bench-mysql`: a hand-written floor and JobMaster on one MySQL or MariaDB server, in one run.

Floor and subject take turns, each measurement in a process of its own on a fresh database, so that a noisy machine hits
both. Prints one table with the targets below it and writes it to `benchmarks/results/` as JSON, as Markdown and as a
plot (with --quick, to `build/bench/` instead). Exit 1 if a target is missed, unless --no-targets.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.mysql_filling import TABLES, fill
from benchmarks.mysql_server import Server, ask
from benchmarks.postgres import program, subject
from benchmarks.rows import OWN, Row, Verdict, report, row, with_ratios

STORE = "mysql"
PARTS = ("drain", "latency", "growth", "claimers")
STANDALONE, SPLIT, CLAIMERS = "jobmaster-standalone", "jobmaster-split", "agent alone"
SINGLE_CALLS = 200
IDLE_SECONDS = 20
ROOT = Path(__file__).parent

TARGETS = (
    ("drain", STANDALONE, "floor", 0.45),
    ("enqueue_bulk", STANDALONE, "floor", 0.5),
    ("growth", STANDALONE, "value", 0.8),
    ("sixteen_claimers", CLAIMERS, "value", 0.7),
)
"""Scenario, subject, whether the ratio to the floor or the value itself is bounded, and the least it may be."""


class Bench:
    """One run: the server, what is asked for, and the rows so far."""

    def __init__(self, server: Server, options: argparse.Namespace) -> None:
        self.server = server
        self.options = options
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._databases = 0

    def database(self) -> str:
        """An empty one; those of earlier measurements are dropped: none uses more than two."""
        if self._databases >= 2:
            self.server.drop(str(self._databases - 2))
        self._databases += 1
        return self.server.fresh(str(self._databases - 1))

    def add(self, scenario: str, who: str, n: int, values: list[float], unit: str, note: str = "") -> None:
        if values:
            version = "-" if who == "floor" else OWN
            self.rows.append(replace(row(scenario, STORE, who, n, values, unit, version), note=note))

    def floor(self, what: str, n: int) -> dict[str, Any]:
        return program("benchmarks.floors.mysql_loop", self.database(), what, str(n))

    def ours(self, what: str, n: int, *, split: bool = False) -> dict[str, Any]:
        agent = self.database()
        return subject(what, n, self.database() if split else agent, agent)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A part that fails is noted, and the rest goes on; its targets then count as missed."""
        print(f"… {name}", file=sys.stderr, flush=True)
        try:
            yield
        except (RuntimeError, AssertionError, subprocess.SubprocessError, OSError) as error:
            self.notes.append(f"{name} failed: {error}")
            print(f"  {self.notes[-1]}", file=sys.stderr, flush=True)

    def drains(self) -> None:
        """Bulk enqueue and drain: floor, standalone, split."""
        for n in self.options.n:
            found: dict[str, list[dict[str, Any]]] = defaultdict(list)
            cpu: list[float] = []
            for turn in range(self.options.rounds):
                with self.step(f"drain of {n:,}, round {turn + 1}"):
                    found["floor"].append(self.floor("drain", n))
                    before = self.server.cpu_seconds()
                    found[STANDALONE].append(self.ours("drain", n))
                    if before is not None:
                        cpu.append(((self.server.cpu_seconds() or 0.0) - before) * 1e6 / n)
                    found[SPLIT].append(self.ours("drain", n, split=True))
            for who, runs in found.items():
                self.add("enqueue_bulk", who, n, [run["enqueue_per_s"] for run in runs], "jobs/s")
                self.add("drain", who, n, [run["drain_per_s"] for run in runs], "jobs/s")
            self.add(
                "server_cpu", STANDALONE, n, cpu, "us/job", "of enqueue and drain together, with making the tables"
            )

    def latencies(self) -> None:
        """Single enqueue, from the call to the handler's first line on an idle worker, and what idling costs."""
        n = SINGLE_CALLS
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for turn in range(self.options.rounds):
            with self.step(f"latency, round {turn + 1}"):
                found["enqueue_single", "floor"].append(self.floor("single", n)["p50_ms"])
                found["enqueue_single", STANDALONE].append(self.ours("single", n)["p50_ms"])
                found["latency_idle", "floor"].append(self.floor("latency", n)["p50_ms"])
                found["latency_idle", STANDALONE].append(self.ours("latency", n)["p50_ms"])
        for (scenario, who), values in found.items():
            self.add(scenario, who, n, values, "ms p50")
        with self.step("an idle process"):
            before = self.server.cpu_seconds()
            share = self.ours("idle", IDLE_SECONDS)["idle_share"]
            self.add("idle_worker", STANDALONE, IDLE_SECONDS, [100 * share], "% of a core")
            if before is not None:
                its = 100 * ((self.server.cpu_seconds() or 0.0) - before) / IDLE_SECONDS
                self.add("idle_server", STANDALONE, IDLE_SECONDS, [its], "% of a core", "with starting and stopping")

    def growth(self) -> None:
        """The drain of a small backlog, and of the first as many of a large one with delayed jobs and history."""
        small, large = 10_000, self.options.backlog
        rates: dict[int, list[float]] = defaultdict(list)
        with self.step(f"a backlog of {large:,}"):
            full = self.database()
            subject("seed", 1, full, full)
            fill(full, large, large, large)
            for _ in range(self.options.rounds):
                few = self.server.fresh("few")
                subject("seed", small, few, few)
                for url, size in ((few, small), (full, large)):
                    rates[size].append(subject("there", small, url, url)["drain_per_s"])
            self.server.drop("few")
            for size, values in rates.items():
                self.add("growth_drain", STANDALONE, size, values, "jobs/s")
            ratios = [b / a for a, b in zip(rates[small], rates[large], strict=True)]
            self.add("growth", STANDALONE, large, ratios, "x of 10,000")

    def claimers(self) -> None:
        """Claim and settle without handlers: one claimer, and four in each of four processes."""
        n = min(self.options.n)
        ratios, met = [], []
        for turn in range(self.options.rounds):
            with self.step(f"sixteen claimers, round {turn + 1}"):
                before = self.server.deadlocks()
                rates = [self._claimed(n, processes, each) for processes, each in ((1, 1), (4, 4))]
                ratios.append(rates[1] / rates[0])
                met.append(float(self.server.deadlocks() - before))
        self.add("sixteen_claimers", CLAIMERS, n, ratios, "x of one")
        self.add("sixteen_claimers_deadlocks", CLAIMERS, n, met, "in the server", "each was tried again; none surfaced")

    def _claimed(self, n: int, processes: int, each: int) -> float:
        """Jobs per second. A claimer that learns of a deadlock dies of it, and this raises."""
        url = self.database()
        subject("seed", 1, url, url)
        fill(url, n, 0, 0)
        command = [sys.executable, "-m", "tests.system.mysql_claimer", url, str(each), "100", "no-op"]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        try:
            for one in started:
                assert one.stdout is not None
                assert one.stdout.readline() == "open\n"
            began = time.perf_counter()
            for one in started:
                assert one.stdin is not None
                one.stdin.write("\n")
                one.stdin.flush()
            while ask(url, f"SELECT 1 FROM {TABLES.job} WHERE st IN (0, 2) LIMIT 1"):
                time.sleep(0.005)
            elapsed = time.perf_counter() - began
            told = [one.communicate("", 60)[0] for one in started]
        finally:
            for one in started:
                one.kill()
                one.wait()
        got = sum(len(json.loads(out)["got"]) for out in told)
        assert got >= n, f"{got:,} of {n:,} were claimed"
        return n / elapsed


def verdicts(rows: list[Row]) -> list[Verdict]:
    """One for each target and row it is about."""
    found = []
    for scenario, who, of, least in TARGETS:
        for each in rows:
            if (each.scenario, each.subject) == (scenario, who):
                value = each.value if of == "value" else each.ratio_to_floor or 0.0
                what = "" if of == "value" else " x floor"
                words = f"{scenario} of {who}, n = {each.n:,}: {value:.2f}{what}, target at least {least:.2f}"
                found.append(Verdict(words, value >= least))
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=lambda text: [int(each) for each in text.split(",")], default=[20_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--no-targets", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small and once, for developing")
    found = parser.parse_args()
    if found.quick:
        found.n, found.rounds, found.backlog = [5_000], 1, 20_000
    return found


def main() -> None:
    asked = options()
    server = Server()
    try:
        bench = Bench(server, asked)
        steps = {"drain": bench.drains, "latency": bench.latencies, "growth": bench.growth, "claimers": bench.claimers}
        for part in asked.only:
            steps[part]()
        version = server.version()
    finally:
        server.stop()
    rows = with_ratios(bench.rows)
    found = verdicts(rows)
    folder = Path("build/bench") if asked.quick else ROOT / "results"
    report(STORE, rows, folder, [f"{version}, default settings; {asked.rounds} rounds.", *bench.notes], found)
    if any(not each.met for each in found) and not asked.no_targets:
        sys.exit(1)


if __name__ == "__main__":
    main()
