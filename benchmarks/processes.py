"""Two worker processes against one: rate, processor time of server and clients, deadlocks, and how even the shares."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from struct import unpack_from
from typing import Any

import asyncpg
import psutil

from benchmarks.filling import TABLES
from benchmarks.postgres_server import Server, costs
from benchmarks.subject import LANES, PATIENCE


@dataclass
class Shared:
    """What several workers did with the same jobs."""

    per_s: float
    cpu_percent: float
    """Of one core, server and workers together; 0 where the server is not ours."""
    machine_percent: float
    """The same for everything that ran on this machine meanwhile."""
    deadlocks: float
    workers: float
    """The smallest share of a worker to the largest."""
    lanes: float
    """The same for lanes, when half of all jobs had run."""


async def shared_drain(server: Server, url: str, n: int, count: int) -> Shared:
    """Drain n queued jobs with that many worker processes, audit counted."""
    watcher: Any = await asyncpg.connect(url)
    before = await costs(url)
    with tempfile.NamedTemporaryFile() as file:
        size = 8 * count * len(LANES)
        file.write(bytes(size))
        file.flush()
        orders = [
            {"what": "work", "n": n, "master": url, "agent": url, "path": file.name, "row": row} for row in range(count)
        ]
        workers = [_worker(order) for order in orders]
        try:
            for worker in workers:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "open\n"
            clients = [psutil.Process(worker.pid) for worker in workers]
            cpu, busy, began = _cpu(server, clients), _busy(), time.perf_counter()
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
            lanes, rows = await _watch(Path(file.name), n, count)
            left = f"SELECT EXISTS (SELECT FROM {TABLES.job}) OR EXISTS (SELECT FROM {TABLES.outbox})"
            while await watcher.fetchval(left):  # noqa: ASYNC110 - from outside there is no event
                await asyncio.sleep(0.005)
            elapsed = time.perf_counter() - began
            percent = 100 * (_cpu(server, clients) - cpu) / elapsed
            machine = 100 * (_busy() - busy) / elapsed
        finally:
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.close()
                worker.wait(60)
    await watcher.close()
    await asyncio.sleep(0.5)
    deadlocks = (await costs(url) - before).deadlocks
    return Shared(n / elapsed, percent, machine, deadlocks, min(rows) / max(rows), min(lanes) / max(lanes))


def _worker(order: dict[str, Any]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.subject", json.dumps(order)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _cpu(server: Server, clients: list[psutil.Process]) -> float:
    own = server.cpu_seconds()
    return (own or 0.0) + sum(sum(client.cpu_times()[:2]) for client in clients)


def _busy() -> float:
    """Processor seconds of this machine that were not idle."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


async def _watch(path: Path, n: int, count: int) -> tuple[list[int], list[int]]:
    """By lane when half had run, and by worker when all had."""
    half: list[int] = []
    seen, since = 0, time.monotonic()
    while True:
        cells = unpack_from(f"{count * len(LANES)}q", path.read_bytes())  # noqa: ASYNC240 - in memory
        total = sum(cells)
        if not half and total >= n / 2:
            half = [sum(cells[lane :: len(LANES)]) for lane in range(len(LANES))]
        if total >= n:
            return half, [sum(cells[row * len(LANES) : (row + 1) * len(LANES)]) for row in range(count)]
        if total > seen:
            seen, since = total, time.monotonic()
        assert time.monotonic() - since < PATIENCE, f"stuck at {total:,} of {n:,}"
        await asyncio.sleep(0.005)
