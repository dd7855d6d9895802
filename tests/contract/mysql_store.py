"""The database that the contract suite and the state machine play with, and the faults it can be made to show."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import pymysql

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.namespace import table_prefix
from jobmaster.contracts.values import Extension
from jobmaster.testing.agents import AgentStore
from jobmaster.testing.agents.cases import HOUR_US, LONG_US, claim, make_job, put, settlement
from jobmaster.testing.agents.harness import LONGEST_REAL_WAIT
from jobmaster_agents.mysql import MysqlAgent
from jobmaster_agents.mysql.tables import Tables
from tests.contract.cutting_proxy import MysqlCuttingProxy
from tests.support import eventually
from tests.system.mysql_plans import Watched

KEPT = "kept_"
"""Before the name of a table: how it was when a test began to rewind."""
FEW_ROWS = 20_000


class MysqlStore(AgentStore):
    """A database on a server whose clock nobody moves."""

    claim_p99_seconds = 0.5
    """Each claim waits for the disk, which others use too."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self._admin = connect(url)
        self._proxies: list[MysqlCuttingProxy] = []
        self._unsafe = False
        self._empty()

    def agent(self, name: str | None = None, cluster: str | None = None, clock: Clock | None = None) -> MysqlAgent:
        return self._agent(self.url, name, cluster, clock)

    def _agent(
        self, url: str, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> MysqlAgent:
        return MysqlAgent(url, cluster=cluster or self.cluster, name=name or self.name, clock=clock)

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
        self._proxies = []
        if self._unsafe:
            self.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
            self._unsafe = False

    def dispose(self) -> None:
        """After the last use."""
        self._admin.close()

    def execute(self, sql: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """As an operator would, on a connection of one's own."""
        with self._admin.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else ()

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
        kept = {table: following for table, _, following in self._tables()}
        for table in kept:
            self.execute(f"CREATE TABLE {KEPT}{table} AS SELECT * FROM {table}")
        return self._restored(kept)

    @contextlib.asynccontextmanager
    async def _restored(self, kept: dict[str, int | None]) -> AsyncIterator[None]:
        yield
        await self.close()
        for table, following in kept.items():
            self.execute(f"TRUNCATE {table}")
            self.execute(f"INSERT INTO {table} SELECT * FROM {KEPT}{table}")
            self.execute(f"DROP TABLE {KEPT}{table}")
            if following is not None:
                self.execute(f"ALTER TABLE {table} AUTO_INCREMENT = {following}")

    async def corrupt(self, job_id: str) -> None:
        self.execute(
            f"UPDATE {self.table('job')} SET data = %s, policy = %s WHERE id = %s", b"\xff{\x00", b"}{", job_id
        )

    async def reincarnate(self) -> None:
        self.execute(f"UPDATE {self.table('meta')} SET incarnation = 'another'")

    async def failing(self, verb: str, point: str) -> AgentTransport:
        proxy = MysqlCuttingProxy(self.url, TableLock(self))
        self._proxies.append(proxy)
        agent = self._agent(await proxy.start())
        await agent.open()
        self.keep(agent)
        proxy.cut_at(point)
        return agent

    async def unsafe(self) -> AgentTransport:
        self._unsafe = True
        self.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 2")
        return self.agent()

    async def plans(self, verb: str) -> list[str]:
        agent = self.agent(name="transport-9")
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
        async with watched.complaints(20, sorts=20) as found:
            await calls[verb]()
        return found

    def _empty(self) -> None:
        for table, rows, _ in self._tables():
            if table.startswith(KEPT):
                self.execute(f"DROP TABLE {table}")
            elif table.endswith("_meta"):
                self.execute(f"UPDATE {table} SET mode = 'open', incarnation = MD5(RAND())")
            elif not table.endswith("_version"):
                # Deleting few rows is ten times as quick as giving a table and its indexes new files.
                self.execute(f"DELETE FROM {table}" if rows < FEW_ROWS else f"TRUNCATE {table}")

    def _tables(self) -> list[tuple[str, int, int | None]]:
        """Names, numbers of rows as they are guessed, and the numbers that their rows get next."""
        found = self.execute(
            "SELECT table_name, table_rows, auto_increment FROM information_schema.tables "
            "WHERE table_schema = DATABASE()"
        )
        return [(str(name), int(rows or 0), following) for name, rows, following in found]


class TableLock:
    """Ends a session while it waits for the store's own state, which every write reads first."""

    def __init__(self, store: MysqlStore) -> None:
        self._store = store
        self._locking: pymysql.Connection[Any] | None = None

    def block(self) -> None:
        self._locking = connect(self._store.url)
        self._locking.query(f"LOCK TABLES {self._store.table('meta')} WRITE")

    async def end_blocked(self) -> None:
        waiting = (
            "SELECT id FROM information_schema.processlist WHERE state LIKE 'Waiting for table%' AND db = DATABASE()"
        )
        try:
            await eventually(lambda: asyncio.to_thread(self._store.execute, waiting))
            for (number,) in self._store.execute(waiting):
                self._store.execute(f"KILL {number}")
        finally:
            assert self._locking is not None
            self._locking.close()


def connect(url: str) -> "pymysql.Connection[Any]":
    """An operator's connection."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password or "",
        database=parts.path[1:],
        autocommit=True,
        charset="utf8mb4",
    )
