"""What Postgres did for the master's statements, as auto_explain tells the server's log; and rows to do it on."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
from msgspec import Struct

from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from tests.outbox_table import OUTBOX
from tests.servers import Postgres

EXPLAINING = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_parameter_max_length": "0",
    "autovacuum": "off",
}
_PART = re.compile(r"(_history|_run)_\w+$")
_PLAN = re.compile(r"plan:\n((?:\t.*\n?)+)")


class Done(Struct):
    """One statement as it was run."""

    text: str
    nodes: list[dict[str, Any]]

    @property
    def returned(self) -> int:
        return int(self.nodes[0]["Actual Rows"])

    def faults(self, big: set[str], allowed: int) -> list[str]:
        """What it did that takes the longer the more rows there are."""
        found = []
        of_parts: Counter[str] = Counter()
        for node in self.nodes:
            kind, loops = node["Node Type"], node["Actual Loops"]
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * loops
            relation = node.get("Relation Name", "a result")
            table = _PART.sub(r"\1", relation)
            if table != relation:
                of_parts[table] += read
            if table in big and kind == "Seq Scan":
                found.append(f"reads all of {table}")
            if read > allowed and (kind in ("Sort", "Incremental Sort") or table in big):
                found.append(f"{kind} of {read:g} rows of {table}")
        found += [f"parts of {table}: {read:g} rows" for table, read in of_parts.items() if read > allowed]
        return [f"{fault}: {' '.join(self.text.split())[:160]}" for fault in found]


class Log:
    """The statements run since the last look."""

    def __init__(self, server: Postgres) -> None:
        self._path = server.folder / "server.log"
        self._seen = 0

    def look(self) -> list[Done]:
        with self._path.open(encoding="utf-8", errors="replace") as file:
            file.seek(self._seen)
            text = file.read()
            self._seen = file.tell()
        plans = [json.loads(block) for block in _PLAN.findall(text)]
        return [Done(plan["Query Text"], [*_nodes(plan["Plan"])]) for plan in plans]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def job_id(of: str, number: int) -> str:
    """The id of the n-th row of `fill`: `h` in the history, `j` among the live."""
    return f"01900000-0000-7000-8{'0' if of == 'h' else '1'}00-{number:012x}"


def quietly(url: str, *statements: str) -> None:
    """Run them without a word in the log."""
    with psycopg.connect(url, autocommit=True, options="-c auto_explain.log_min_duration=-1") as connection:
        for statement in statements:
            connection.execute(statement.encode())


def fill(url: str, tables: Tables, rows: int) -> None:
    """So many rows in the history, each with a run, and so many live ones, of which most are held and one in a
    hundred is on its way; and some outbox records."""
    common = {
        "handler": "'handler-' || n % 20",
        "lane": "'lane-' || n % 5",
        "priority": "2",
        "epoch": "1",
        "claim_seq": "1",
        "version": "3",
        "agent": "'transport-1'",
        "created_us": "n",
        "original_due_us": "n",
        "due_us": "n",
        "attempts": "1",
        "snoozes": "0",
        "interrupts": "0",
        "crash_count": "0",
        "suspect": "false",
        "effects": "false",
        "data": "'{\"user\":1}'::bytea",
        "policy": "'{}'::bytea",
    }
    ended = "CASE n % 100 WHEN 0 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'succeeded' END"
    reason = "CASE n % 100 WHEN 0 THEN 'exhausted' END"
    history = common | {"id": _id("h"), "state": ended, "reason": reason, "finished_us": "n"}
    state = "CASE n % 100 WHEN 0 THEN 'dispatching' WHEN 1 THEN 'queued' ELSE 'held' END"
    live = common | {"id": _id("j"), "state": state, "dispatch_until_us": "n"}
    run = {"job_id": _id("h"), "token": "4294967297", "attempt": "1", "worker": "'w'", "host": "'h'"}
    run |= {"started_us": "n", "finished_us": "n", "outcome": "'succeeded'"}
    record = {"seq": "n", "kind": "'plain'", "at_us": "n"}
    record |= {f"job_{name}": value for name, value in (history | {"id": _id("o")}).items() if name in JOB_FIELDS}
    record |= {f"run_{name}": value for name, value in (run | {"job_id": _id("o")}).items() if name in RUN_FIELDS}
    quietly(
        url,
        _insert(tables.history.name, history, rows),
        _insert(tables.run.name, run, rows),
        _insert(tables.job.name, live, rows),
        _insert(OUTBOX, record, min(rows, 20_000)),
    )


def _id(of: str) -> str:
    digit = {"h": "0", "j": "1", "o": "2"}[of]
    return f"('01900000-0000-7000-8{digit}00-' || lpad(to_hex(n), 12, '0'))::uuid"


def _insert(table: str, values: dict[str, str], rows: int) -> str:
    columns = ", ".join(values)
    return f"INSERT INTO {table} ({columns}) SELECT {', '.join(values.values())} FROM generate_series(1, {rows}) AS n"
