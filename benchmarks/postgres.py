"""`make bench-postgres`: hand-written floors, JobMaster and its peers on one Postgres server, in one run.

Floors, subjects and peers take turns, each measurement in a process of its own on a fresh database, so that a noisy
machine hits all of them. Prints one table with the targets below it and writes it to `benchmarks/results/` as JSON, as
Markdown and as a plot (with --quick, to `build/bench/` instead). Exit 1 if a target is missed, unless --no-targets.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks import peer_runs
from benchmarks.filling import fill
from benchmarks.postgres_server import Server
from benchmarks.postgres_targets import SPLIT, STANDALONE, verdicts
from benchmarks.processes import shared_drain
from benchmarks.rows import OWN, Row, read, report, row, with_ratios

STORE = "postgres"
PARTS = ("drain", "latency", "growth", "held", "processes")
SINGLE_CALLS = 300
ONCE_ABOVE = 20_000
"""Peers drain more jobs than these in the first round only: the slow ones would take most of the run."""
ROOT = Path(__file__).parent


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
            asyncio.run(self.server.drop(str(self._databases - 2)))
        self._databases += 1
        return asyncio.run(self.server.fresh(str(self._databases - 1)))

    def add(
        self,
        scenario: str,
        subject: str,
        n: int,
        values: list[float],
        unit: str,
        version: str = OWN,
        note: str = "",
    ) -> None:
        if values:
            self.rows.append(replace(row(scenario, STORE, subject, n, values, unit, version), note=note))

    def floor(self, what: str, n: int) -> dict[str, Any]:
        return program("benchmarks.floors.postgres_loop", self.database(), what, str(n))

    def ours(self, what: str, n: int, *, split: bool = False, **more: Any) -> dict[str, Any]:
        agent = self.database()
        master = self.database() if split else agent
        return subject(what, n, master, agent, **more)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A part that fails is noted, and the rest goes on; its targets then count as missed."""
        print(f"… {name}", file=sys.stderr, flush=True)
        try:
            yield
        except (RuntimeError, AssertionError, subprocess.SubprocessError, OSError, asyncpg.PostgresError) as error:
            self.notes.append(f"{name} failed: {error}")
            print(f"  {self.notes[-1]}", file=sys.stderr, flush=True)

    def tuned(self) -> dict[str, dict[str, Any]]:
        """The best settings of each peer that runs here, by name."""
        best: dict[str, dict[str, Any]] = {}
        for peer in self.peers():
            n = min(self.options.tune, peer.largest)
            rates: list[tuple[float, dict[str, Any]]] = []
            for settings in peer.settings:
                with self.step(f"{peer.name} with {settings}"):
                    rates.append((peer_runs.run(peer, self.database(), "drain", n, settings)["drain_per_s"], settings))
            if rates:
                best[peer.name] = max(rates, key=lambda each: each[0])[1]
        return best

    def peers(self) -> list[peer_runs.Peer]:
        return [peer for peer in peer_runs.PEERS if not self.options.no_peers]

    def drains(self, best: dict[str, dict[str, Any]]) -> None:
        """Bulk enqueue and drain: floor, standalone, split, peers."""
        for n in self.options.n:
            found: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
            for turn in range(self.options.rounds):
                with self.step(f"drain of {n:,}, round {turn + 1}"):
                    found["floor", n].append(self.floor("drain", n))
                    found[STANDALONE, n].append(self.ours("drain", n, costs=True))
                    found[SPLIT, n].append(self.ours("drain", n, split=True))
                for peer in self.peers():
                    its = min(n, peer.largest)
                    done = any((old.subject, old.n) == (peer.name, its) for old in self.rows)
                    if peer.name in best and not done and (turn == 0 or its <= ONCE_ABOVE):
                        with self.step(f"{peer.name}, {its:,}"):
                            run = peer_runs.run(peer, self.database(), "drain", its, best[peer.name])
                            found[peer.name, its].append(run)
            for (subject, its), runs in found.items():
                version = self.version(subject)
                self.add("enqueue_bulk", subject, its, [run["enqueue_per_s"] for run in runs], "jobs/s", version)
                rates = [run["drain_per_s"] for run in runs]
                note = f"at its best of several settings, {best[subject]}" if subject in best else ""
                self.add("drain", subject, its, rates, "jobs/s", version, note)
            for last in found[STANDALONE, n][-1:]:
                for part in ("enqueue", "drain"):
                    for name, value in last[f"{part}_costs"].items():
                        if name != "deadlocks" and value >= 0:
                            self.add(f"{part}_{name}", STANDALONE, n, [value], "per job")

    def version(self, subject: str) -> str:
        for peer in peer_runs.PEERS:
            if peer.name == subject:
                return peer_runs.installed(peer)[1]
        return "-" if subject == "floor" else OWN

    def latencies(self, best: dict[str, dict[str, Any]]) -> None:
        """Single enqueue, and from the call to the handler's first line on an idle worker."""
        n = SINGLE_CALLS
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        singles: dict[str, list[float]] = defaultdict(list)
        for turn in range(self.options.rounds):
            with self.step(f"latency, round {turn + 1}"):
                singles["floor"].append(self.floor("single", n)["p50_ms"])
                singles[STANDALONE].append(self.ours("single", n)["p50_ms"])
                found["floor"].append(self.floor("latency", n))
                found[STANDALONE].append(self.ours("latency", n))
        for peer in self.peers():
            if peer.name in best:
                with self.step(f"latency of {peer.name}"):
                    found[peer.name].append(peer_runs.run(peer, self.database(), "latency", n, best[peer.name]))
        for subject, values in singles.items():
            self.add("enqueue_single", subject, n, values, "ms p50", self.version(subject))
        for subject, runs in found.items():
            self.add("latency_idle", subject, n, [run["p50_ms"] for run in runs], "ms p50", self.version(subject))

    def growth(self) -> None:
        """The drain of a small backlog, and of the first as many of a large one with delayed jobs and history."""
        small, large = 10_000, self.options.backlog
        rates: dict[int, list[float]] = defaultdict(list)
        with self.step(f"a backlog of {large:,}"):
            full = self.database()
            subject("seed", 1, full, full)
            asyncio.run(fill(full, large, large, large))
            for _ in range(self.options.rounds):
                few = asyncio.run(self.server.fresh("few"))
                subject("seed", small, few, few)
                for url, size in ((few, small), (full, large)):
                    rates[size].append(subject("there", small, url, url)["drain_per_s"])
            asyncio.run(self.server.drop("few"))
            for size, values in rates.items():
                self.add("growth_drain", STANDALONE, size, values, "jobs/s")
            ratios = [b / a for a, b in zip(rates[small], rates[large], strict=True)]
            self.add("growth", STANDALONE, large, ratios, "x of 10,000")

    def held(self) -> None:
        """Rounds of enqueue and drain before, and while, another transaction holds the oldest snapshot."""
        n, seconds = 10_000, self.options.hold
        with self.step(f"an idle transaction for {seconds:g} s"):
            url = self.database()
            free = subject("rounds", n, url, url, seconds=min(15.0, seconds))["rates"]
            held = asyncio.run(hold(url, lambda: subject("rounds", n, url, url, seconds=seconds)))
            before = statistics.median(free[1:] or free)
            last = held["rates"][-max(1, len(held["rates"]) // 5) :]
            self.add("held_xmin_drain", STANDALONE, n, free[1:] or free, "jobs/s before")
            self.add("held_xmin_drain", STANDALONE, n, last, "jobs/s at the end")
            note = f"{len(held['rates']) * n:,} jobs went through in {seconds:g} s of an idle transaction"
            self.add("held_xmin", STANDALONE, n, [rate / before for rate in last], "x of before", note=note)

    def processes(self) -> None:
        """One worker process and two, on three lanes."""
        n = max(self.options.n)
        ratios, percents, machine, deadlocks, evens, lanes = [], [], [], [], [], []
        for turn in range(self.options.rounds):
            with self.step(f"two worker processes, round {turn + 1}"):
                found = []
                for count in (1, 2):
                    url = self.database()
                    subject("spread", n, url, url)
                    found.append(asyncio.run(shared_drain(self.server, url, n, count)))
                one, two = found
                ratios.append(two.per_s / one.per_s)
                percents.append(two.cpu_percent)
                machine.append(two.machine_percent)
                deadlocks.append(one.deadlocks + two.deadlocks)
                evens.append(two.workers)
                lanes.append(two.lanes)
        self.add("two_workers", STANDALONE, n, ratios, "x of one")
        self.add("two_workers_cpu", STANDALONE, n, percents, "% of a core")
        self.add("two_workers_machine", STANDALONE, n, machine, "% of a core")
        self.add("two_workers_deadlocks", STANDALONE, n, deadlocks, "deadlocks")
        self.add("two_workers_even", STANDALONE, n, evens, "least/most by worker")
        self.add("two_workers_lanes", STANDALONE, n, lanes, "least/most by lane")


def program(module: str, *arguments: str) -> dict[str, Any]:
    """One measurement in a process of its own. Raises RuntimeError with the end of what it printed."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=1200)
    if done.returncode:
        raise RuntimeError(f"{module} {arguments[-1]}: {done.stderr.strip()[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def subject(what: str, n: int, master: str, agent: str, **more: Any) -> dict[str, Any]:
    """One measurement of JobMaster."""
    return program("benchmarks.subject", json.dumps({"what": what, "n": n, "master": master, "agent": agent, **more}))


async def hold(url: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do that in a thread while a transaction with a snapshot is open in the same database."""
    connection: Any = await asyncpg.connect(url)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await connection.execute("SELECT count(*) FROM pg_class")
    try:
        return await asyncio.to_thread(work)
    finally:
        await connection.close()


def measure(bench: Bench) -> None:
    """Every scenario that is asked for; a row for each."""
    asked = bench.options.only
    best = bench.tuned() if {"drain", "latency"} & set(asked) else {}
    if "drain" in asked:
        bench.drains(best)
    if "latency" in asked:
        bench.latencies(best)
    if "growth" in asked:
        bench.growth()
    if "held" in asked:
        bench.held()
    if "processes" in asked:
        bench.processes()


def part_of(row: Row) -> str:
    """Which of `PARTS` the row belongs to."""
    marks = {"latency": ("latency", "enqueue_single"), "growth": ("growth",), "held": ("held",), "processes": ("two",)}
    return next((part for part, starts in marks.items() if row.scenario.startswith(starts)), "drain")


def mistuned(rows: list[Row]) -> Iterator[str]:
    for peer in peer_runs.PEERS:
        rates = [each.value for each in rows if each.subject == peer.name and each.scenario == "drain"]
        if peer.expected and rates and max(rates) < 0.7 * peer.expected[0]:
            low, high = peer.expected
            seen = f"{low:,.0f} to {high:,.0f} were seen before"
            yield f"{peer.name} is mis-tuned: {max(rates):,.0f} jobs/s, where {seen}"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=lambda text: [int(each) for each in text.split(",")], default=[20_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tune", type=int, default=5_000, help="jobs for each setting of a peer")
    parser.add_argument("--hold", type=float, default=180, help="seconds of an idle transaction")
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--keep", action="store_true", help="keep the rows of the parts not asked for")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-targets", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small and once, for developing")
    found = parser.parse_args()
    if found.quick:
        found.n, found.rounds, found.tune, found.hold, found.backlog = [5_000], 1, 2_000, 10, 20_000
    return found


def main() -> None:
    asked = options()
    server = Server()
    try:
        bench = Bench(server, asked)
        measure(bench)
        version = asyncio.run(server.version())
    finally:
        server.stop()
    folder = Path("build/bench") if asked.quick else ROOT / "results"
    older = [each for each in read(STORE, folder) if part_of(each) not in asked.only] if asked.keep else []
    rows = with_ratios([*older, *bench.rows], [peer.name for peer in peer_runs.PEERS])
    found = verdicts(rows)
    head = f"Postgres {version}, default settings; {asked.rounds} rounds (of peers one above {ONCE_ABOVE:,} jobs)."
    notes = [head, *bench.notes]
    notes += mistuned(rows)
    report(STORE, rows, folder, notes, found)
    if any(not each.met for each in found) and not asked.no_targets:
        sys.exit(1)


if __name__ == "__main__":
    main()
