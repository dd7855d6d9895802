"""`make bench-cluster`: far-future jobs that become near in the same minute, handed to agents by several coordinators.

    python -m benchmarks.handoff --held 1000000 --near 100000 --seconds 60 --coordinators 3

The master and two of three agents are databases of one throw-away Postgres; the third agent has a server of its own,
which is stopped after a quarter of the time. The jobs are written by SQL, those that stay held a day from their
time; the coordinators are processes of their own, with no workers. How late a job is: from its due time less the
threshold until an agent's answer that it is stored, by this machine's clock. Jobs that were drawn for the agent before
it was known to be gone wait for it, and are counted apart.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import psutil

from benchmarks.filling import ID
from benchmarks.postgres_server import Server, server_cpu
from benchmarks.rows import Row, Verdict, read, report, row
from benchmarks.subject import NoOp
from jobmaster import Cluster, ClusterBuilder
from jobmaster.cli.eventloop import run_async
from jobmaster.contracts.values import PutAnswer
from jobmaster.model.job import Job
from tests.servers import Postgres

ROOT = Path(__file__).parent
THRESHOLD_SECONDS = 600
SECOND = 1_000_000
PROMPT_SECONDS = 5.0
PATIENCE = 120.0
BEGINS = 8.0
FILLING = 200e-6
"""How long before the first mark the near jobs begin to be written, and how much earlier for each of them; the rest of
it is what the coordinators have to start."""


def build(order: dict[str, Any]) -> Cluster:
    config = ClusterBuilder("bench").ignore_environment().add_handlers(NoOp).log(level="error")
    config.use_master(order["master"])
    for name, url in order["agents"].items():
        config.add_agent(name).use_agent(url)
    return config.build().without_workers()


class Noted:
    """What one coordinator did."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, int, int]] = []
        """Job, due time, and when an agent said that it is stored."""
        self.again = 0
        self.lost = 0

    def watch(self, transport: Any) -> None:
        put = transport.put

        async def noting(jobs: list[Job], deadline_us: int) -> list[PutAnswer]:
            answers: list[PutAnswer] = await put(jobs, deadline_us)
            now_us = time.time_ns() // 1_000
            for job, answer in zip(jobs, answers, strict=True):
                if answer is PutAnswer.STORED:
                    self.stored.append((job.id, job.due_us, now_us))
                else:
                    self.again += 1
            return answers

        transport.put = noting


async def coordinate(order: dict[str, Any]) -> None:
    """One coordinator, from the first line of the standard input to its end."""
    noted = Noted()
    loop = asyncio.get_running_loop()
    async with build(order).connect():
        pass
    print("open", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    began = time.process_time()
    async with build(order).run() as runtime:
        for name in runtime.agents:
            noted.watch(runtime.agents[name])
        await loop.run_in_executor(None, sys.stdin.read)
    with open(order["path"], "w", encoding="utf-8") as file:  # noqa: ASYNC230 - all is over
        json.dump({"stored": noted.stored, "again": noted.again, "cpu": time.process_time() - began}, file)


async def hold(url: str, count: int, due: str, settled: bool = True) -> None:
    """That many held jobs, due at the SQL expression of their number `g`. `settled`: with statistics, and on disk."""
    connection: Any = await asyncpg.connect(url)
    now_us = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    values = {
        "id": ID.format(n=count, salt=due),
        "handler": "'no-op'",
        "lane": "'default'",
        "priority": "2",
        "state": "'held'",
        "created_us": now_us,
        "original_due_us": due,
        "due_us": due,
        "version": "1",
        "suspect": "false",
        "effects": "false",
        "data": "'{}'",
        "policy": "'{}'",
    }
    values |= dict.fromkeys(("epoch", "claim_seq", "attempts", "snoozes", "interrupts", "crash_count"), "0")
    try:
        table = await connection.fetchval("SELECT relname FROM pg_class WHERE relname LIKE 'jm\\_bench\\_%\\_job'")
        await connection.execute(
            f"INSERT INTO {table} ({', '.join(values)}) SELECT {', '.join(values.values())} "
            f"FROM generate_series(0, {count - 1}) AS g",
            timeout=1200,
        )
        if settled:
            await connection.execute("ANALYZE")
            await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def waiting(url: str, last_us: int) -> bool:
    """Whether a near job is held, or on its way to an agent that is there."""
    connection: Any = await asyncpg.connect(url)
    try:
        table = await connection.fetchval("SELECT relname FROM pg_class WHERE relname LIKE 'jm\\_bench\\_%\\_job'")
        question = f"""SELECT EXISTS (SELECT FROM {table} WHERE state = 'held' AND due_us <= $1)
            OR EXISTS (SELECT FROM {table} WHERE state = 'dispatching' AND agent <> 'one')"""
        return bool(await connection.fetchval(question, last_us))
    finally:
        await connection.close()


async def statements(url: str) -> tuple[int, list[str]]:
    """How many there were so far, and what took the most time."""
    connection: Any = await asyncpg.connect(url)
    try:
        total = int(await connection.fetchval("SELECT coalesce(sum(calls), 0) FROM pg_stat_statements"))
        worst = await connection.fetch(
            "SELECT calls, rows, total_exec_time AS ms, left(query, 60) || ' … ' || right(query, 220) AS query "
            "FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 12"
        )
        return total, [f"{each['ms']:9.0f} ms {each['calls']:7} x {each['rows']:8} {each['query']}" for each in worst]
    finally:
        await connection.close()


def measure(server: Server, dying: Postgres, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    master = asyncio.run(server.fresh("master"))
    agents = {name: asyncio.run(server.fresh(name)) for name in ("two", "three")} | {"one": dying.url}
    order = {"master": master, "agents": agents}
    paths = [folder / f"{number}.json" for number in range(options.coordinators)]
    processes = [_process(order | {"path": str(paths[0])})]
    assert _line(processes[0]) == "open\n"
    processes += [_process(order | {"path": str(path)}) for path in paths[1:]]
    try:
        for process in processes[1:]:
            assert _line(process) == "open\n"
        far_us = time.time_ns() // 1_000 + 86_400 * SECOND
        asyncio.run(hold(master, options.held - options.near, f"{far_us} + g"))
        mark_us = time.time_ns() // 1_000 + round((BEGINS + options.near * FILLING) * SECOND)
        begins_us = mark_us + THRESHOLD_SECONDS * SECOND
        step = options.seconds * SECOND / options.near
        asyncio.run(hold(master, options.near, f"({begins_us} + g * {step})::bigint", settled=False))
        before, _ = asyncio.run(statements(master))
        cpu = _servers_cpu(server, dying)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert time.time() < mark_us / SECOND, "the near jobs were not written before the first mark: raise FILLING"
        last_us = begins_us + options.seconds * SECOND
        time.sleep(max(0, mark_us / SECOND + options.seconds / 4 - time.time()))
        cpu -= server_cpu(dying.pid)
        dying.stop()
        time.sleep(options.seconds * 3 / 4)
        until = time.monotonic() + PATIENCE
        while asyncio.run(waiting(master, last_us)) and time.monotonic() < until:
            time.sleep(1)
        total, worst = asyncio.run(statements(master))
        cpu = _servers_cpu(server, None) - cpu
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            process.wait(60)
    found = [json.loads(path.read_text()) for path in paths]
    return summary(found, options, total - before, cpu, worst)


def summary(
    found: list[dict[str, Any]], options: argparse.Namespace, calls: int, cpu: float, worst: list[str]
) -> dict[str, Any]:
    stored = [each for one in found for each in one["stored"]]
    late = sorted(max(0, at_us - due_us + THRESHOLD_SECONDS * SECOND) / SECOND for _, due_us, at_us in stored)
    n = len(late)
    return {
        "handed over": n,
        "waiting for the agent that is gone": options.near - n,
        "twice": n - len({job_id for job_id, _, _ in stored}),
        "puts of what was there": sum(one["again"] for one in found),
        "shares": [len(one["stored"]) for one in found],
        "p50": late[n // 2],
        "p99": late[n * 99 // 100],
        "most": late[-1],
        "statements a job": calls / n,
        "server us a job": cpu / n * 1e6,
        "coordinators us a job": sum(one["cpu"] for one in found) / n * 1e6,
        "worst": worst,
    }


def _servers_cpu(server: Server, dying: Postgres | None) -> float:
    return (server.cpu_seconds() or 0.0) + (server_cpu(dying.pid) if dying is not None else 0.0)


def _process(order: dict[str, Any]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.handoff", "--coordinate", json.dumps(order)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def rows_of(found: dict[str, Any], options: argparse.Namespace) -> list[Row]:
    n, who = options.near, f"{options.coordinators} coordinators"
    values = {
        "handoff_p50": ("p50", "s"),
        "handoff_p99": ("p99", "s"),
        "handoff_most": ("most", "s"),
        "handoff_twice": ("twice", "jobs"),
        "handoff_put_again": ("puts of what was there", "jobs"),
        "handoff_pinned": ("waiting for the agent that is gone", "jobs"),
        "handoff_statements": ("statements a job", "by job"),
        "handoff_server": ("server us a job", "us/job"),
        "handoff_coordinators": ("coordinators us a job", "us/job"),
    }
    return [row(name, "cluster", who, n, [found[key]], unit) for name, (key, unit) in values.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held", type=int, default=1_000_000)
    parser.add_argument("--near", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--coordinators", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, for developing")
    parser.add_argument("--coordinate", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.coordinate:
        run_async(coordinate(json.loads(options.coordinate)))
        return
    if options.quick:
        options.held, options.near, options.seconds = options.held // 10, options.near // 10, options.seconds / 10
    server, dying = Server(), Postgres()
    try:
        dying.start()
        with TemporaryDirectory() as folder:
            found = measure(server, dying, options, Path(folder))
    finally:
        server.stop()
        dying.remove()
    print(json.dumps(found, indent=2))
    busy = f"load average {psutil.getloadavg()[0]:.1f} at the end"
    target = Path("build/bench") if options.quick else ROOT / "results"
    rows = [each for each in read("cluster", target) if not each.scenario.startswith("handoff")]
    size = f"{options.held:,} held, {options.near:,} near within {options.seconds:g} s"
    head = f"{size}, one of three agents stopped; {busy}"
    promptly = Verdict(f"p99 {found['p99']:.2f} s of at most {PROMPT_SECONDS:g} s", found["p99"] <= PROMPT_SECONDS)
    once = Verdict(f"{found['twice']} jobs handed off twice", found["twice"] == 0)
    report("cluster", [*rows, *rows_of(found, options)], target, [head], [promptly, once])
    if not (promptly.met and once.met):
        sys.exit(1)


if __name__ == "__main__":
    main()
