"""The tables of an agent on MariaDB are restored from an older dump, truncated, or dropped, while the cluster runs and
while it is stopped: see `test_rewound_sqlite`."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobmaster import Cluster
from jobmaster.contracts.namespace import table_prefix
from tests.servers import connected
from tests.sizes import FULL_ONLY
from tests.system.rewound import AGENT, CLUSTER, begin, prepared, sorted_out

PREFIX = table_prefix(CLUSTER, AGENT)
TABLES = ("job", "outbox", "tombstone", "meta", "lane", "count", "worker", "signal", "ticket")


class Operator:
    """Somebody with a connection of their own, and a dump."""

    def __init__(self, url: str) -> None:
        self._connection = connected(url)
        self._numbers: dict[str, int] = {}
        self._kept: dict[str, list[tuple[Any, ...]]] = {}

    def close(self) -> None:
        self._connection.close()

    def dump(self) -> None:
        # What is read table by table must not change meanwhile.
        self._run(f"LOCK TABLES {', '.join(f'{PREFIX}{table} READ' for table in TABLES)}")
        self._kept = {table: self._run(f"SELECT * FROM {PREFIX}{table}") for table in TABLES}
        for table, number in self._run(
            "SELECT table_name, auto_increment FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND auto_increment IS NOT NULL"
        ):
            self._numbers[table] = number
        self._run("UNLOCK TABLES")

    def older_dump(self) -> None:
        # As one step: what runs meanwhile is not to write in between.
        self._run(f"LOCK TABLES {', '.join(f'{PREFIX}{table} WRITE' for table in TABLES)}")
        self.truncate()
        for table, rows in self._kept.items():
            for row in rows:
                self._run(f"INSERT INTO {PREFIX}{table} VALUES ({', '.join(['%s'] * len(row))})", row)
        for table, number in self._numbers.items():
            self._run(f"ALTER TABLE {table} AUTO_INCREMENT = {number}")
        self._run("UNLOCK TABLES")

    def truncate(self, tables: tuple[str, ...] = TABLES) -> None:
        for table in tables:
            self._run(f"TRUNCATE {PREFIX}{table}")

    def truncate_jobs(self) -> None:
        self.truncate(("job",))

    def drop(self) -> None:
        self._run(f"DROP TABLE {', '.join(PREFIX + table for table in (*TABLES, 'version'))}")

    def _run(self, sql: str, values: Any = None) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall()) if cursor.description else []


RARE = [pytest.param(harm, marks=FULL_ONLY) for harm in (Operator.truncate, Operator.drop)]
HARM = pytest.mark.parametrize("harm", [Operator.older_dump, Operator.truncate_jobs, *RARE])


@pytest.fixture
def operator(mysql_url: str) -> Iterator[Operator]:
    operator = Operator(mysql_url)
    yield operator
    operator.close()


@pytest.fixture
def cluster(mysql_url: str, tmp_path: Path) -> Cluster:
    return begin(f"sqlite:///{tmp_path}/master.db", mysql_url)


@pytest.mark.asyncio
@HARM
async def test_while_it_runs(cluster: Cluster, operator: Operator, harm: Callable[[Operator], None]) -> None:
    async with prepared(cluster, lambda: asyncio.to_thread(operator.dump)) as before:
        await asyncio.to_thread(harm, operator)
        await sorted_out(before.runtime, before)


@pytest.mark.asyncio
@HARM
async def test_while_it_is_stopped(cluster: Cluster, operator: Operator, harm: Callable[[Operator], None]) -> None:
    async with prepared(cluster, lambda: asyncio.to_thread(operator.dump)) as before:
        pass
    harm(operator)
    async with cluster.run() as runtime:
        await sorted_out(runtime, before)
