"""`make bench-nats`: hand-written nats-py loops, JobMaster and taskiq-nats on NATS JetStream, in one run.

Twice: as a server is set by default, where it acknowledges before it has synced, and with `sync_interval: always`,
which is what JobMaster asks for. Each measurement has a process and a server of its own, and they take turns, so that
a noisy machine hits all of them. The master is SQLite, in the measured process. Prints one table with the targets below
it and writes it to `benchmarks/results/` (with --quick, to `build/bench/`). Exit 1 if a target is missed, unless
--no-targets.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peer_runs
from benchmarks.postgres import program
from benchmarks.rows import OWN, Row, Verdict, report, row, with_ratios
from benchmarks.subject import AGENT
from jobmaster.contracts.values import Revoke, RevokeKind
from jobmaster.model.ids import new_id
from jobmaster_agents.nats import NatsAgent
from tests.servers.nats import Nats

STORE = "nats"
OURS, OPTIMISTIC, LIMITS = "jobmaster", "jobmaster-optimistic", "jobmaster-limits"
MODES = {"default": "2m", "always": "always"}
PEER = peer_runs.Peer(
    "taskiq_nats",
    "taskiq-nats",
    (2_500, 3_700),
    (
        {"batch": 100, "timeout": 0.1, "tasks": 100},
        {"batch": 10, "timeout": 0.1, "tasks": 100},
    ),
    largest=10_000,
)
FILL = 1_000


@dataclass(frozen=True)
class Target:
    """The least ratio of a subject to another in one scenario; above 1 is faster, whatever the unit."""

    scenario: str
    subject: str
    least: float
    to: str = "floor"


TARGETS = (
    Target("enqueue_bulk default", OURS, 1.0),
    Target("drain default", OURS, 0.4),
    Target("drain default", OPTIMISTIC, 0.5),
    Target("drain default", OURS, 1.8, PEER.name),
    Target("drain default", OPTIMISTIC, 1.8, PEER.name),
    Target("latency_idle default", OURS, 1 / 3),
    Target("enqueue_bulk always", OURS, 0.5, "floor-batches"),
    Target("drain always", OURS, 0.6),
    Target("tombstones default", OURS, 0.85, "fresh"),
)


@contextmanager
def served(mode: str) -> Iterator[Nats]:
    server = Nats()
    server.sync = MODES[mode]
    server.start()
    try:
        yield server
    finally:
        server.remove()


def ours(what: str, n: int, server: Nats, **options: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        order = {
            "what": what,
            "n": n,
            "master": f"sqlite:///{folder}/master.db",
            "agent": server.url,
            "options": {"monitor": server.monitor, "accept_unsafe": True, **options},
        }
        return program("benchmarks.subject", json.dumps(order))


async def fill(server: Nats, n: int) -> None:
    """As many tombstones, of jobs that never were."""
    agent = NatsAgent(server.url, cluster="bench", name=AGENT, options={"accept_unsafe": True})
    await agent.open()
    for start in range(0, n, FILL):
        await agent.revoke([Revoke(new_id(), 1, RevokeKind.CANCEL) for _ in range(min(FILL, n - start))])
        await agent.confirm([record.seq for record in await agent.changes(FILL)])
    await agent.close()


class Bench:
    """One run and its rows so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows: list[Row] = []
        self.notes: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A part that fails is noted, and the rest goes on; its targets then count as missed."""
        print(f"… {name}", file=sys.stderr, flush=True)
        try:
            yield
        except (RuntimeError, AssertionError, subprocess.SubprocessError, OSError) as error:
            self.notes.append(f"{name} failed: {error}")
            print(f"  {self.notes[-1]}", file=sys.stderr, flush=True)

    def add(self, scenario: str, subject: str, n: int, values: list[float], unit: str) -> None:
        version = peer_runs.installed(PEER)[1] if subject == PEER.name else OWN if subject.startswith(OURS) else "-"
        if values:
            self.rows.append(row(scenario, STORE, subject, n, values, unit, version))

    def drains(self, mode: str, n: int) -> None:
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        for turn in range(self.options.rounds):
            with self.step(f"{mode}: drain of {n:,}, round {turn + 1}"):
                with served(mode) as server:
                    found["floor"].append(program("benchmarks.floors.nats_loop", server.url, "drain", str(n)))
                with served(mode) as server:
                    found[OURS].append(ours("drain", n, server))
                with served(mode) as server:
                    found[OPTIMISTIC].append(ours("drain", n, server, optimistic="default"))
                with served(mode) as server:
                    found[LIMITS].append(ours("drain", n, server, retention="limits"))
            if not self.options.no_peers:
                with self.step(f"{mode}: {PEER.name}, round {turn + 1}"), served(mode) as server:
                    its = PEER.settings[turn % len(PEER.settings)]
                    found[PEER.name].append(peer_runs.run(PEER, server.url, "drain", min(n, PEER.largest), its))
        for subject, runs in found.items():
            self.add(f"enqueue_bulk {mode}", subject, n, [run["enqueue_per_s"] for run in runs], "jobs/s")
            self.add(f"drain {mode}", subject, n, [run["drain_per_s"] for run in runs], "jobs/s")
        batches = [run["batches_per_s"] for run in found["floor"]]
        self.add(f"enqueue_bulk {mode}", "floor-batches", n, batches, "jobs/s")

    def latency(self, mode: str, n: int) -> None:
        found: dict[str, list[float]] = defaultdict(list)
        for turn in range(self.options.rounds):
            with self.step(f"{mode}: latency, round {turn + 1}"), served(mode) as server:
                found["floor"].append(program("benchmarks.floors.nats_loop", server.url, "latency", str(n))["p50_ms"])
                found[OURS].append(ours("latency", n, server)["p50_ms"])
                if not self.options.no_peers:
                    found[PEER.name].append(peer_runs.run(PEER, server.url, "latency", n, PEER.settings[0])["p50_ms"])
        for subject, values in found.items():
            self.add(f"latency_idle {mode}", subject, n, values, "ms p50")

    def tombstones(self, mode: str, n: int) -> None:
        found: dict[str, list[float]] = defaultdict(list)
        for turn in range(self.options.rounds):
            with self.step(f"{mode}: beside {self.options.tombstones:,} tombstones, round {turn + 1}"):
                with served(mode) as server:
                    found["fresh"].append(ours("drain", n, server)["drain_per_s"])
                with served(mode) as server:
                    asyncio.run(fill(server, self.options.tombstones))
                    found[OURS].append(ours("drain", n, server)["drain_per_s"])
        for subject, values in found.items():
            self.add(f"tombstones {mode}", subject, n, values, "jobs/s")


def verdicts(rows: list[Row]) -> list[Verdict]:
    """One for each target whose rows are there."""
    found = []
    for target in TARGETS:
        values = {each.subject: each for each in rows if each.scenario == target.scenario}
        mine, other = values.get(target.subject), values.get(target.to)
        if mine is None or other is None:
            continue
        ratio = mine.value / other.value if mine.unit.endswith("/s") else other.value / mine.value
        words = f"{target.scenario} of {target.subject}: {ratio:.2f} x {target.to}, target at least {target.least:.2f}"
        found.append(Verdict(words, ratio >= target.least))
    return found


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tombstones", type=int, default=200_000)
    parser.add_argument("--mode", choices=MODES, action="append", help="one of them only")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-targets", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small and once, for developing")
    found = parser.parse_args()
    if found.quick:
        found.n, found.rounds, found.tombstones = 5_000, 1, 20_000
    return found


def main() -> None:
    asked = options()
    bench = Bench(asked)
    for mode in asked.mode or MODES:
        bench.drains(mode, asked.n)
        bench.latency(mode, 100 if asked.quick else 300)
    if "default" in (asked.mode or MODES):
        bench.tombstones("default", asked.n)
    folder = Path("build/bench") if asked.quick else Path(__file__).parent / "results"
    rows = with_ratios(bench.rows, [PEER.name])
    found = verdicts(rows)
    report(STORE, rows, folder, bench.notes, found)
    if any(not each.met for each in found) and not asked.no_targets:
        sys.exit(1)


if __name__ == "__main__":
    main()
