"""`kill -9` at every failpoint, then a restart: nothing lost, nothing run under two live leases, runs bounded."""

import json
import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobmaster.contracts.namespace import table_prefix
from jobmaster.telemetry.failpoints import NAMES
from tests.sizes import SIZES
from tests.system.fleet.test_job_control import OPERATING
from tests.system.rewound import RECONCILING
from tests.system.test_drain_crashes import DRAINING
from tests.system.test_master_move import STEPS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
VICTIM = Path(__file__).with_name("victim.py")
JOBS = 12
SECONDS = 60
KILLED = 137
MOST_RUNS = 8  # max_attempts 4 + max_crashes 3 + 1

ON_NATS = ("parcel.published",)
ELSEWHERE = {*RECONCILING, *DRAINING, *STEPS, *OPERATING, *ON_NATS}
"""Those that a cluster comes by only on occasions that have tests of their own."""

FIRST = [(name, 1) for name in NAMES if name not in ELSEWHERE]
LATER = [
    ("enqueue.after_commit", 7),
    ("claim.after_commit", 3),
    ("run.before_start", 5),
    ("run.handler_returned", 5),
    ("settle.before_commit", 3),
    ("settle.after_commit", 3),
    ("move.before_commit", 2),
    ("handoff.put", 2),
    ("schedule.tick", 2),
]
BEFORE_THE_TABLES = {"migration.step"}
SCENARIOS = FIRST + LATER if SIZES.name == "full" else FIRST


@dataclass
class Witness:
    acked: set[str]
    starts: dict[str, list[tuple[int, int]]]
    """Job → (token, pid), in order."""


def read(oracle: Path) -> Witness:
    acked: set[str] = set()
    starts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in oracle.read_text().splitlines():
        what, job, *numbers = line.split()
        if what == "acked":
            acked.add(job)
        else:
            starts[job].append((int(numbers[0]), int(numbers[1])))
    return Witness(acked, starts)


def run_victim(folder: Path, failpoints: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")]),
        "JOBMASTER_FAILPOINTS": failpoints,
        "JOBMASTER_FAILPOINT_LOG": str(folder / "hits"),
        **more,
    }
    command = [sys.executable, str(VICTIM), str(folder / "faults.db"), str(folder / "oracle"), str(JOBS)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)


def failed_jobs(folder: Path) -> int:
    command = [sys.executable, "-m", "jobmaster", "stats", "--file", str(folder / "faults.db"), "--cluster", "faults"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")])}
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    totals: dict[str, int] = json.loads(done.stdout)["totals"]
    assert totals["succeeded"] >= JOBS
    return totals["failed"]


def let_hand_offs_be_overdue(folder: Path) -> None:
    """As if the dispatcher that was killed had been silent for the 30 s after which others may take over."""
    with closing(sqlite3.connect(folder / "faults.db", isolation_level=None)) as connection:
        connection.execute(f"UPDATE {table_prefix('faults')}job SET dispatch_until_us = 0 WHERE state = 'dispatching'")


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("name", "nth"), SCENARIOS, ids=[f"{name}@{nth}" for name, nth in SCENARIOS])
def test_a_process_killed_at_a_failpoint_loses_nothing(name: str, nth: int, tmp_path: Path) -> None:
    if name == "reap.after_commit":
        # Nobody's lease lapses in an undisturbed run: leave one behind for the run that reaps it.
        assert run_victim(tmp_path, "run.handler_returned:crash@2").returncode == KILLED
    first = run_victim(tmp_path, f"{name}:crash@{nth}")
    assert first.returncode == KILLED, f"{name} was not reached {nth} times: {first.returncode}\n{first.stderr}"
    assert name in (tmp_path / "hits").read_text().split()

    if SIZES.name == "short" and name not in BEFORE_THE_TABLES:
        let_hand_offs_be_overdue(tmp_path)
    second = run_victim(tmp_path)
    assert second.returncode == 0, second.stderr

    assert_nothing_was_lost(tmp_path)


def assert_nothing_was_lost(folder: Path) -> None:
    witness = read(folder / "oracle")
    assert len(witness.acked) == JOBS
    for job, runs in witness.starts.items():
        tokens = [token for token, _ in runs]
        assert tokens == sorted(set(tokens)), f"{job}: tokens {tokens} do not strictly increase"
        assert len(runs) <= MOST_RUNS
    assert witness.acked <= witness.starts.keys()
    assert failed_jobs(folder) == 0


def test_every_failpoint_has_a_scenario() -> None:
    assert {name for name, _ in SCENARIOS} | ELSEWHERE == set(NAMES)
