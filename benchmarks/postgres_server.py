"""The Postgres server of a benchmark run: started by the resolver of the tests with the settings Postgres has by
default, so what it acknowledges is on disk; and what a piece of work cost it."""

import os
from dataclasses import asdict, dataclass, fields
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psutil

from tests.servers import Postgres
from tests.servers.postgres import binaries


@dataclass(frozen=True)
class Costs:
    """What a server did. `statements` is -1 where pg_stat_statements is not loaded."""

    statements: float
    transactions: float
    wal_bytes: float
    dead_tuples: float
    deadlocks: float

    def __sub__(self, other: "Costs") -> "Costs":
        return Costs(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))

    def per(self, n: int) -> dict[str, float]:
        """By job, except the deadlocks."""
        return {name: value if name == "deadlocks" else value / n for name, value in asdict(self).items()}


async def costs(url: str) -> Costs:
    """What this server did until now, in all its databases; `dead_tuples` counts the updates and deletes of the
    database of that URL, whether vacuumed since or not."""
    connection: Any = await asyncpg.connect(url)
    try:
        loaded = await connection.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'")
        statements = await connection.fetchval("SELECT sum(calls) FROM pg_stat_statements") if loaded else -1
        row = await connection.fetchrow(
            """SELECT (SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database) AS transactions,
                      (SELECT sum(deadlocks) FROM pg_stat_database) AS deadlocks,
                      (SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables) AS dead,
                      pg_current_wal_insert_lsn() - '0/0' AS wal"""
        )
        return Costs(
            float(statements or 0),
            float(row["transactions"]),
            float(row["wal"]),
            float(row["dead"] or 0),
            float(row["deadlocks"]),
        )
    finally:
        await connection.close()


class Server:
    """A throw-away server, or the one that JOBMASTER_TEST_POSTGRES_URL names."""

    def __init__(self) -> None:
        given = os.environ.get("JOBMASTER_TEST_POSTGRES_URL")
        self._process: Postgres | None = None
        if given:
            self.url = given
            return
        settings = {}
        if (binaries().parent / "share" / "extension" / "pg_stat_statements.control").exists():
            settings["shared_preload_libraries"] = "pg_stat_statements"
        self._process = Postgres(settings=settings)
        self._process.start()
        self.url = self._process.url

    async def fresh(self, name: str) -> str:
        """An empty database of that name; gives its URL. What was there goes."""
        connection: Any = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS bench_{name} WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE bench_{name}")
            # Each measurement begins with no dirty pages of the one before.
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()
        url = urlsplit(self.url)._replace(path=f"/bench_{name}").geturl()
        if self._process is not None and "shared_preload_libraries" in self._process.settings:
            connection = await asyncpg.connect(url)
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            await connection.close()
        return url

    async def drop(self, name: str) -> None:
        connection: Any = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS bench_{name} WITH (FORCE)")
        finally:
            await connection.close()

    async def version(self) -> str:
        connection: Any = await asyncpg.connect(self.url)
        try:
            return str(await connection.fetchval("SHOW server_version")).split()[0]
        finally:
            await connection.close()

    def cpu_seconds(self) -> float | None:
        """Processor time of the server and its children until now; None for a server that is not ours."""
        return None if self._process is None else server_cpu(self._process.pid)

    def stop(self) -> None:
        if self._process is not None:
            self._process.remove()


def server_cpu(pid: int) -> float:
    """Processor seconds of that process, its children that live and those it has waited for."""
    main = psutil.Process(pid)
    times = main.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in main.children(recursive=True):
        try:
            its = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += its.user + its.system
    return float(total)
