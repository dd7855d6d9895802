"""Query plans of the SQLite transport's verbs, as they run."""

import sqlite3
from collections.abc import Callable
from typing import Any, cast

from jobmaster.contracts.values import Extension, PutAnswer, RevokeKind, Settlement
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster_agents.sqlite import SqliteAgent, outbox, reading, waiting
from jobmaster_agents.sqlite.store import Store
from jobmaster_agents.sqlite.tables import Tables

NEVER_US = 1 << 60
BATCH = 5_000


class Recorder:
    """Stands in for a connection where a verb is given one, and notes the plan of every statement."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plans: list[tuple[str, str]] = []

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        plan = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
        self.plans += [(row[3], " ".join(sql.split())[:300]) for row in plan]
        return self._connection.execute(sql, parameters)

    def complaints(self, tables: Tables) -> list[str]:
        """Steps that sort, or read jobs, records or tombstones from one end to the other."""
        large = {f"SCAN {name}" for name in (tables.job, tables.outbox, tables.tombstone)}
        aliases = {"SCAN j", "SCAN stone", "SCAN record", "SCAN old"}
        # The leased ones are few: their whole index is read to find those that ran out.
        allowed = (f"SCAN {tables.job} USING INDEX {tables.job}_leased", f"SCAN {tables.outbox} USING INTEGER PRIMARY")
        return [
            f"{step}: {sql}"
            for step, sql in self.plans
            if not step.startswith(allowed)
            and ("TEMP B-TREE FOR ORDER" in step or step in large | aliases or "AUTOMATIC" in step)
        ]


async def fill(agent: SqliteAgent, count: int) -> list[Job]:
    """Jobs of two lanes, a tenth of them delayed, and 20 leased; the leased ones."""
    now_us = await agent.store_now_us()
    for start in range(0, count, BATCH):
        jobs = [
            Job(
                id=new_id(),
                handler="send-welcome",
                lane=("default", "second")[number % 2],
                priority=number % 5,
                created_us=now_us,
                original_due_us=now_us,
                due_us=now_us + (number % 10 == 9) * 3_600_000_000,
            )
            for number in range(start, min(start + BATCH, count))
        ]
        assert set(await agent.put(jobs, NEVER_US)) == {PutAnswer.STORED}
    return await agent.claim("w1", {"default": 10, "second": 10}, frozenset({"send-welcome"}), 20, 15_000_000)


async def complaints(agent: SqliteAgent, verb: str, leased: list[Job]) -> list[str]:
    """What the plans of one verb should not do."""
    verbs = agent.verbs
    store = verbs.store
    now_us = store.now_us()
    handlers = frozenset({"send-welcome", "other"})
    settlements = [
        Settlement(
            id=job.id,
            token=job.token,
            outcome=RunOutcome.SUCCEEDED,
            attempt=1,
            worker="w1",
            host="h",
            started_us=now_us,
            finished_us=now_us,
        )
        for job in leased[:5]
    ]
    calls: dict[str, Callable[[sqlite3.Connection], object]] = {
        "put": lambda c: verbs.putting.put(c, [_again(leased[0])], NEVER_US),
        "claim": lambda c: verbs.claiming.claim(c, "w1", {"default": 10, "second": 10}, handlers, 20, 1),
        "extend": lambda c: verbs.leasing.extend(c, [Extension(job.id, job.token) for job in leased[5:]], 1),
        "settle": lambda c: verbs.settling.settle(c, verbs.settling.prepare(settlements)),
        "reap": lambda c: verbs.leasing.reap(c, 10, frozenset({"w9"}), True),
        "promote": lambda c: waiting.promote(store, c, 10),
        "given_up": lambda c: waiting.given_up(store, c, frozenset({"send-welcome"}), 10),
        "give_up": lambda c: waiting.give_up(store, c, frozenset({"send-welcome"}), [1, 2]),
        "park": lambda c: waiting.park(store, c, frozenset({"send-welcome"}), 10, [1, 2]),
        "withdraw": lambda c: waiting.take_waiting(store, c, None, RevokeKind.MOVE, 10),
        "stats": lambda c: reading.stats(store, c),
        "changes": lambda c: outbox.changes(store, c, 10, 0),
        "confirm": lambda c: outbox.confirm(store, c, [1, 2, 3]),
        "prune": lambda c: outbox.prune(store, c, 10),
        "find": lambda c: outbox.latest(store, c, '["x"]'),
        "inventory": lambda c: reading.inventory(store, c, "", 10),
        "jobs": lambda c: reading.jobs(store, c, "", "z", 10, False),
    }
    return await store.database.write(lambda connection: _record(connection, store, calls[verb]))


def _record(connection: sqlite3.Connection, store: Store, call: Callable[[sqlite3.Connection], object]) -> list[str]:
    recorder = Recorder(connection)
    call(cast("sqlite3.Connection", recorder))
    assert recorder.plans
    return recorder.complaints(store.tables)


def _again(job: Job) -> Job:
    """A new job like this one."""
    return Job(
        id=new_id(), handler=job.handler, created_us=job.created_us, original_due_us=job.due_us, due_us=job.due_us
    )
