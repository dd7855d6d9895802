"""The tables of a Postgres agent are restored from an older dump, truncated, or dropped, while the cluster runs and
while it is stopped: see `test_rewound_sqlite`."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from jobmaster import Cluster
from jobmaster.contracts.namespace import table_prefix
from tests.system.rewound import AGENT, CLUSTER, begin, prepared, sorted_out

pytestmark = pytest.mark.slow

PREFIX = table_prefix(CLUSTER, AGENT)
TABLES = ("job", "outbox", "tombstone", "meta", "lane", "count", "worker", "signal")


class Operator:
    """Somebody with a connection of their own, and a dump."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._sequences: dict[str, tuple[int, bool]] = {}

    def close(self) -> None:
        self._connection.close()

    def dump(self) -> None:
        with self._connection.transaction():
            for table in TABLES:
                self._run(f"CREATE TABLE dump_{table} AS TABLE {PREFIX}{table}")
            for sequence in ("outbox_seq", "place"):
                [found] = self._run(f"SELECT last_value, is_called FROM {PREFIX}{sequence}")
                self._sequences[sequence] = found

    def older_dump(self) -> None:
        with self._connection.transaction():
            self._run(f"TRUNCATE {', '.join(PREFIX + table for table in TABLES)}")
            for table in TABLES:
                self._run(f"INSERT INTO {PREFIX}{table} SELECT * FROM dump_{table}")
            for sequence, (last, called) in self._sequences.items():
                self._run(f"SELECT setval('{PREFIX}{sequence}', {last}, {called})")

    def truncate(self, tables: tuple[str, ...] = TABLES) -> None:
        self._run(f"TRUNCATE {', '.join(PREFIX + table for table in tables)}")

    def truncate_jobs(self) -> None:
        self.truncate(("job",))

    def drop(self) -> None:
        self._run(f"DROP FUNCTION {PREFIX}put, {PREFIX}put_one")
        self._run(f"DROP TABLE {', '.join(PREFIX + table for table in (*TABLES, 'version'))} CASCADE")
        self._run(f"DROP SEQUENCE IF EXISTS {PREFIX}place, {PREFIX}outbox_seq")

    def _run(self, sql: str) -> list[tuple[int, bool]]:
        cursor = self._connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


HARM = pytest.mark.parametrize("harm", [Operator.older_dump, Operator.truncate, Operator.truncate_jobs, Operator.drop])


@pytest.fixture
def operator(postgres_url: str) -> Iterator[Operator]:
    operator = Operator(postgres_url)
    yield operator
    operator.close()


@pytest.fixture
def cluster(postgres_url: str, tmp_path: Path) -> Cluster:
    return begin(f"sqlite:///{tmp_path}/master.db", postgres_url)


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
