"""The database that the contract suite and the state machine play with, and the faults it can be made to show."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import psycopg

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import Extension
from jobmaster.testing.agents import AgentStore
from jobmaster.testing.agents.cases import HOUR_US, LONG_US, claim, make_job, put, settlement
from jobmaster.testing.agents.harness import LONGEST_REAL_WAIT
from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.tables import Tables
from tests.contract.cutting_proxy import CuttingProxy
from tests.servers import create_database, drop_database
from tests.support import eventually
from tests.system.postgres_plans import Watched

KEPT = "kept_"
"""Before the name of a table: how it was when a test began to rewind."""
SMALL = 1 << 20
"""Bytes."""


class PostgresStore(AgentStore):
    """A database on a server whose clock nobody moves."""

    claim_p99_seconds = 0.5
    """Each claim waits for the disk, which others use too."""

    def __init__(self, url: str, through: str | None = None) -> None:
        """`through`: the same database as its clients are to reach it, by way of a pooler."""
        super().__init__()
        self.url = url
        self._through = through or url
        self._admin = psycopg.connect(url, autocommit=True)
        self._proxies: list[CuttingProxy] = []
        self._databases: list[str] = []
        self._empty()

    def agent(self, name: str | None = None, cluster: str | None = None, clock: Clock | None = None) -> PostgresAgent:
        return self._agent(self._through, name, cluster, clock)

    def _agent(
        self, url: str, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> PostgresAgent:
        return PostgresAgent(url, cluster=cluster or self.cluster, name=name or self.name, clock=clock)

    async def open(
        self, *, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> AgentTransport:
        agent = self.agent(name, cluster, clock)
        await agent.open()
        return self.keep(agent)

    async def close(self) -> None:
        await super().close()
        for proxy in self._proxies:
            await proxy.close()
        for database in self._databases:
            drop_database(self.url, database)
        self._proxies, self._databases = [], []

    def dispose(self) -> None:
        """After the last use."""
        self._admin.close()

    def execute(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """As an operator would, on a connection of one's own."""
        cursor = self._admin.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def table(self, name: str) -> str:
        return f"{table_prefix(self.cluster, self.name)}{name}"

    async def advance(self, seconds: float) -> None:
        if seconds <= LONGEST_REAL_WAIT:
            await super().advance(seconds)
            return
        # Time can't be moved here, but what happened can: only ends are asked about after so long.
        for table in ("tombstone", "outbox"):
            self.execute(f"UPDATE {self.table(table)} SET at_us = at_us - %s", round(seconds * 1e6) + 1_000)

    async def rewind(self) -> AbstractAsyncContextManager[None]:
        kept = list(self._tables())
        for table in kept:
            self.execute(f"CREATE TABLE {KEPT}{table} AS TABLE {table}")
        found = self.execute("SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema()")
        sequences = {name: self.execute(f"SELECT last_value, is_called FROM {name}")[0] for (name,) in found}
        return self._restored(kept, sequences)

    @contextlib.asynccontextmanager
    async def _restored(self, kept: list[str], sequences: dict[str, tuple[int, bool]]) -> AsyncIterator[None]:
        yield
        await self.close()
        for table in kept:
            self.execute(f"TRUNCATE {table}")
            self.execute(f"INSERT INTO {table} SELECT * FROM {KEPT}{table}")
            self.execute(f"DROP TABLE {KEPT}{table}")
        for name, (last, called) in sequences.items():
            self.execute(f"SELECT setval('{name}', %s, %s)", last, called)

    async def corrupt(self, job_id: str) -> None:
        self.execute(
            f"UPDATE {self.table('job')} SET data = %s, policy = %s WHERE id = %s", b"\xff{\x00", b"}{", job_id
        )

    async def reincarnate(self) -> None:
        self.execute(f"UPDATE {self.table('meta')} SET incarnation = 'another'")

    async def unsafe(self) -> AgentTransport:
        database = create_database(self.url)
        self._databases.append(database)
        self.execute(f"ALTER DATABASE {urlsplit(database).path[1:]} SET synchronous_commit = off")
        return self._agent(database)

    async def failing(self, verb: str, point: str) -> AgentTransport:
        proxy = CuttingProxy(self._through, TableLock(self))
        self._proxies.append(proxy)
        agent = self._agent(await proxy.start())
        await agent.open()
        self.keep(agent)
        proxy.cut_at(point)
        return agent

    async def plans(self, verb: str) -> list[str]:
        agent = self._agent(self.url, name="transport-9")
        await agent.open()
        self.keep(agent)
        now_us = await agent.store_now_us()
        jobs = [make_job(now_us, due_us=now_us + (number % 10 == 9) * HOUR_US) for number in range(2_000)]
        await put(agent, *jobs)
        leased = await claim(agent, 20)
        watched = await Watched.of(agent, Tables(self.cluster, agent.name))
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "claim": lambda: claim(agent, 20),
            "settle": lambda: agent.settle([settlement(job) for job in leased]),
            "extend": lambda: agent.extend([Extension(job.id, job.token) for job in leased], LONG_US),
            "reap": lambda: agent.reap(20),
            "promote": lambda: agent.promote(20),
            "stats": agent.stats,
            "changes": lambda: agent.changes(20),
        }
        with watched.complaints(20) as found:
            await calls[verb]()
        return found

    def _empty(self) -> None:
        statements = []
        for table, size in self._tables().items():
            if table.startswith(KEPT):
                statements.append(f"DROP TABLE {table}")
            elif table.endswith("_meta"):
                statements.append(f"UPDATE {table} SET mode = 'open', incarnation = md5(random()::text)")
            elif not table.endswith("_version"):
                # Deleting few rows is ten times as quick as giving a table and its indexes new files.
                statements.append(f"DELETE FROM {table}" if size < SMALL else f"TRUNCATE {table}")
        if statements:
            self.execute("; ".join(statements))

    def _tables(self) -> dict[str, int]:
        """Names and sizes in bytes."""
        return dict(
            self.execute(
                "SELECT relname::text, pg_relation_size(oid) FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
            )
        )


class TableLock:
    """Ends a session while it waits for the table of jobs."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._locking: psycopg.Connection[Any] | None = None

    def block(self) -> None:
        self._locking = psycopg.connect(self._store.url)
        self._locking.execute(f"LOCK TABLE {self._store.table('job')}".encode())

    async def end_blocked(self) -> None:
        waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        try:
            await eventually(lambda: asyncio.to_thread(self._store.execute, f"SELECT pid {waiting}"))
            self._store.execute(f"SELECT pg_terminate_backend(pid, 5000) {waiting}")
        finally:
            assert self._locking is not None
            self._locking.close()
