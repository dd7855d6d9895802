"""`make bench-retention`: a history of millions of finished jobs: reading it, draining beside it, pruning half of it.

    python -m benchmarks.retention --history 20000000

Master and agent are one database. The history is written by SQL: narrow rows, each with a run, ended one after another
over the last 20 days, in a part for each day, of 20 handlers and 3 lanes, two in a hundred failed and one cancelled.
Each step runs in a process of its own: no-op jobs are enqueued and drained again and again beside an empty history,
beside the full one, and while a coordinator forgets what is older than 10 days. Figures are wall time; and processor
time of the server and of the worker's process by job, which depends less on what else runs.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from benchmarks.postgres_server import Server, costs
from benchmarks.rows import Row, Verdict, report, row
from benchmarks.subject import AGENT, NoOp, build
from jobmaster import ClusterBuilder
from jobmaster.cli.eventloop import run_async
from jobmaster.contracts.values import JobFilter
from jobmaster.master.parts import first_id, time_us
from jobmaster.master.sql.tables import JOB_TYPES, RUN_TYPES
from jobmaster.model.states import JobState

ROOT = Path(__file__).parent
STORE = "retention"
DAYS = 20.0
DAY_US = 86_400_000_000
CHUNK = 500_000
HANDLERS = 20
GETS = 3_000
PAGES = 40
"""Times that each kind of page is read."""

TIME = "({now} - ({n} - g) * {step})::bigint"
ID = """(lpad(to_hex(({time}) / 1000), 12, '0') || '7' || substr(md5(g::text), 1, 3) || 'a' ||
         substr(md5(g::text), 4, 15))::uuid"""


async def tables(connection: Any) -> str:
    """The prefix of the master's tables."""
    name = await connection.fetchval(
        "SELECT relname FROM pg_class WHERE relname LIKE 'jm\\_bench\\_%\\_history' AND relkind IN ('r', 'p')"
    )
    return str(name).removesuffix("history")


async def divide(connection: Any, prefix: str) -> int:
    """Make a part for each of the days, as if they had been cut in their time, before the first that is there; when
    that begins now, in us."""
    first_job = await connection.fetchval(f"SELECT min(id::text) FROM {prefix}history")
    begins_us = time_us(first_job) - 1_000_000
    ends = [first_id(begins_us - round(day * DAY_US)) for day in range(round(DAYS), -1, -1)]
    async with connection.transaction():
        for table in (f"{prefix}history", f"{prefix}run"):
            until = await connection.fetchval(
                r"SELECT substring(pg_get_expr(relpartbound, oid) FROM 'TO \(''(.*)''\)') FROM pg_class "
                "WHERE oid = to_regclass($1)",
                f"{table}_first",
            )
            await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {table}_first")
            await connection.execute(f"ALTER TABLE {table}_first RENAME TO {table}_now")
            await connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {table}_now FOR VALUES FROM ('{ends[-1]}') TO ('{until}')"
            )
            lows = ["MINVALUE", *(f"'{end}'" for end in ends)]
            for number, (low, high) in enumerate(zip(lows, ends, strict=False)):
                name = f"{table}_day{number}" if number else f"{table}_first"
                await connection.execute(
                    f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ({low}) TO ('{high}')"
                )
    return begins_us


async def fill(url: str, n: int) -> int:
    """So many finished jobs and their runs, with fresh statistics; before when they ended, in us."""
    connection: Any = await asyncpg.connect(url)
    prefix = await tables(connection)
    until_us = await divide(connection, prefix)
    at = TIME.format(now=until_us, n=n, step=DAYS * DAY_US / n)
    ident = ID.format(time=at)
    job = {name: "NULL" if nullable else "0" for name, (_, nullable) in JOB_TYPES.items()}
    job |= {
        "id": ident,
        "handler": f"'handler-' || g % {HANDLERS}",
        "lane": "'lane-' || g % 3",
        "priority": "2",
        "state": "CASE g % 100 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'failed' WHEN 2 THEN 'failed' ELSE 'succeeded' END",
        "reason": "CASE g % 100 WHEN 1 THEN 'exhausted' WHEN 2 THEN 'exhausted' END",
        "epoch": "1",
        "claim_seq": "1",
        "version": "2",
        "agent": f"'{AGENT}'",
        "attempts": "1",
        "suspect": "false",
        "effects": "false",
        "data": "'{}'",
        "policy": "'{}'",
    }
    job |= dict.fromkeys(("created_us", "original_due_us", "due_us", "first_started_us", "finished_us"), at)
    run = {name: "NULL" if nullable else "0" for name, (_, nullable) in RUN_TYPES.items()}
    run |= {"job_id": ident, "token": "4294967297", "attempt": "1", "worker": "'w'", "host": "'h'"}
    run |= {"started_us": at, "finished_us": at, "outcome": "'succeeded'"}
    try:
        for start in range(0, n, CHUNK):
            for table, values in (("history", job), ("run", run)):
                await connection.execute(
                    f"INSERT INTO {prefix}{table} ({', '.join(values)}) SELECT {', '.join(values.values())} "
                    f"FROM generate_series({start}, {min(n, start + CHUNK) - 1}) AS g",
                    timeout=1200,
                )
            print(f"  {start + CHUNK:,} written", file=sys.stderr, flush=True)
        await connection.execute(f"VACUUM (ANALYZE) {prefix}history, {prefix}run", timeout=1200)
        await connection.execute("CHECKPOINT", timeout=600)
        return until_us
    finally:
        await connection.close()


async def sample(url: str, count: int) -> list[str]:
    """Ids of jobs in the history, from anywhere in it."""
    connection: Any = await asyncpg.connect(url)
    try:
        prefix = await tables(connection)
        low, high = await connection.fetchrow(
            f"SELECT min(id::text), max(id::text) FROM {prefix}history TABLESAMPLE SYSTEM (0.1)"
        )
        first, last = (int(each[:8] + each[9:13], 16) for each in (low, high))
        ids = []
        for _ in range(count):
            ms = random.randint(first, last)
            near = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7000-8000-000000000000"
            found = await connection.fetchval(
                f"SELECT h.id::text FROM {prefix}history AS h WHERE h.id >= $1 ORDER BY h.id LIMIT 1", near
            )
            ids += [found] if found else []
        return ids
    finally:
        await connection.close()


async def reading(order: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of `get` and of pages, as any program asks for them."""
    ids = await sample(order["url"], GETS)
    found: dict[str, Any] = {}
    filters = {
        "all": JobFilter(),
        "a handler": JobFilter(handler="handler-7"),
        "failed": JobFilter(states=frozenset({JobState.FAILED})),
        "succeeded in a lane": JobFilter(states=frozenset({JobState.SUCCEEDED}), lane="lane-1"),
    }
    async with build(order["url"], order["url"], {}).connect() as scheduler:
        master: Any = scheduler._master  # noqa: SLF001 - without what a scheduler asks agents besides
        took = []
        for job_id in ids:
            began = time.perf_counter()
            (job,) = await master.get([job_id])
            took.append((time.perf_counter() - began) * 1e3)
            assert job is not None
        found["get"] = sorted(took)
        for name, where in filters.items():
            for place in ("first", "deep"):
                took = []
                for number in range(PAGES):
                    began = time.perf_counter()
                    page = await master.page(where, None if place == "first" else ids[number], 50)
                    took.append((time.perf_counter() - began) * 1e3)
                    assert page.jobs or page.cursor or place == "deep"
                found[f"{place} page of {name}"] = sorted(took)
    return found


async def forget(order: dict[str, Any]) -> dict[str, Any]:
    """A coordinator that keeps what ended for so many days, until nothing older is left."""
    config = ClusterBuilder("bench").ignore_environment().add_handlers(NoOp).log(level="warning")
    config.use_master(order["url"])
    config.add_agent(AGENT).use_agent(order["url"])
    config.set("timings.retention_days", order["days"])
    connection: Any = await asyncpg.connect(order["url"])
    prefix = await tables(connection)
    old = " OR ".join(
        f"EXISTS (SELECT FROM {prefix}history WHERE state = '{state}' AND lane = 'lane-{lane}' AND finished_us < $1)"
        for state in ("succeeded", "failed", "cancelled")
        for lane in range(3)
    )
    async with config.build().without_workers().run():
        began, cpu = time.perf_counter(), time.process_time()
        while await connection.fetchval(f"SELECT {old}", order["before_us"]):  # noqa: ASYNC110 - from outside, no event
            await asyncio.sleep(0.5)
        found = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    await connection.close()
    return found


async def rounds(order: dict[str, Any]) -> dict[str, Any]:
    """Enqueue and drain n jobs over and over until the end of the standard input: when each round ended, and its
    rate."""
    from benchmarks.subject import drained, enqueue  # the module counts jobs in one process

    rates: list[tuple[float, float]] = []
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with build(order["url"], order["url"], {}).run() as runtime:
        began = time.process_time()
        while not ended.done() or not rates:
            await enqueue(runtime, order["n"])
            rates.append((await drained(runtime, order["n"]), time.time()))
        cpu = time.process_time() - began
    return {"rates": rates, "cpu": cpu}


class Drain:
    """`rounds` in a process of its own, from here to `end`."""

    def __init__(self, server: Server, url: str, n: int) -> None:
        self._server, self._n = server, n
        self._process = start("rounds", url=url, n=n)
        self._cpu = server.cpu_seconds() or 0.0

    def end(self, seconds: float) -> dict[str, float]:
        """After so many seconds: jobs a second, and microseconds of processor time by job."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        found = answer(self._process)
        jobs = self._n * len(found["rates"])
        return {
            "per_s": statistics.median(rate for rate, _ in found["rates"]),
            "rounds": len(found["rates"]),
            "server_us": ((self._server.cpu_seconds() or 0.0) - self._cpu) / jobs * 1e6,
            "worker_us": found["cpu"] / jobs * 1e6,
        }


PARTS = {"reading": reading, "forget": forget, "rounds": rounds}


def start(part: str, **order: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.retention", "--part", json.dumps({"part": part, **order})]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, f"exit {process.returncode}"
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def measure(server: Server, options: argparse.Namespace) -> dict[str, Any]:
    url = asyncio.run(server.fresh("retention"))
    found: dict[str, Any] = {"empty": Drain(server, url, options.n).end(options.seconds)}
    print(json.dumps(found), file=sys.stderr, flush=True)
    began = time.monotonic()
    until_us = asyncio.run(fill(url, options.history))
    found["fill_s"] = time.monotonic() - began
    found["full"] = Drain(server, url, options.n).end(options.seconds)
    found["reading"] = answer(start("reading", url=url))
    print(json.dumps({key: found[key] for key in ("fill_s", "full")}), file=sys.stderr, flush=True)
    beside = Drain(server, url, options.n)
    before = asyncio.run(costs(url))
    days = DAYS / 2
    pruning = start("forget", url=url, days=days, before_us=until_us - round(days * DAY_US))
    found["prune"] = answer(pruning)
    found["beside"] = beside.end(0)
    found["wal_mb"] = (asyncio.run(costs(url)) - before).wal_bytes / 1e6
    return found


def rows_of(found: dict[str, Any], options: argparse.Namespace) -> list[Row]:
    n = options.history
    gets = found["reading"]["get"]
    rows = [
        row("get_p50", STORE, "jobmaster", n, [gets[len(gets) // 2]], "ms"),
        row("get_p99", STORE, "jobmaster", n, [gets[len(gets) * 99 // 100]], "ms"),
    ]
    for name, took in found["reading"].items():
        if "page" in name:
            rows.append(row(f"{name}, slowest of {len(took)}", STORE, "jobmaster", n, [took[-1]], "ms"))
    for name, words in (("empty", "beside an empty history"), ("full", "beside it"), ("beside", "while pruning")):
        each = found[name]
        rows.append(row(f"drain {words}", STORE, "jobmaster", n, [each["per_s"]], "jobs/s"))
        rows.append(row(f"drain {words}: server", STORE, "jobmaster", n, [each["server_us"]], "us/job"))
        rows.append(row(f"drain {words}: worker", STORE, "jobmaster", n, [each["worker_us"]], "us/job"))
    rows.append(row("prune half", STORE, "jobmaster", n, [found["prune"]["seconds"]], "s"))
    rows.append(row("prune half: WAL, with the drain's", STORE, "jobmaster", n, [found["wal_mb"]], "MB"))
    rows.append(row("prune half: coordinator", STORE, "jobmaster", n, [found["prune"]["cpu"]], "s of processor"))
    return rows


def verdicts(found: dict[str, Any], n: int) -> list[Verdict]:
    gets = found["reading"]["get"]
    p99 = gets[len(gets) * 99 // 100]
    page = max(took[-1] for name, took in found["reading"].items() if "page" in name)
    full, beside = found["full"]["per_s"] / found["empty"]["per_s"], found["beside"]["per_s"] / found["full"]["per_s"]
    seconds, most = found["prune"]["seconds"], 120 * n / 20_000_000
    return [
        Verdict(f"get p99 {p99:.1f} ms of at most 5", p99 <= 5),
        Verdict(f"slowest page {page:.0f} ms of at most 100", page <= 100),
        Verdict(f"drain beside it {full:.2f} x empty, at least 0.85", full >= 0.85),
        Verdict(f"half pruned in {seconds:.0f} s of at most {most:.0f}", seconds <= most),
        Verdict(f"drain while pruning {beside:.2f} x before, at least 0.9", beside >= 0.9),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--history", type=int, default=20_000_000)
    parser.add_argument("--n", type=int, default=10_000, help="jobs of a round of the drain")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a drain")
    parser.add_argument("--quick", action="store_true", help="small, for developing")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        order = json.loads(options.part)
        print(json.dumps(run_async(PARTS[order["part"]](order))))
        return
    if options.quick:
        options.history, options.n, options.seconds = 200_000, 5_000, 5.0
    server = Server()
    try:
        found = measure(server, options)
    finally:
        server.stop()
    folder = Path("build/bench") if options.quick else ROOT / "results"
    head = f"history written in {found['fill_s']:.0f} s; load average {psutil.getloadavg()[0]:.1f} at the end"
    found_verdicts = verdicts(found, options.history)
    report(STORE, rows_of(found, options), folder, [head], found_verdicts)
    if not all(each.met for each in found_verdicts):
        sys.exit(1)


if __name__ == "__main__":
    main()
