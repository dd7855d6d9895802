"""The floor on MySQL or MariaDB: what hand-written aiomysql loops do that keep the same promise of durability and
nothing else.

Bulk enqueue by multi-row inserts; two connections that claim 500 by SKIP LOCKED, write audit rows and delete; single
inserts; and one producer with one consumer that polls every 5 ms. No leases, no fences, no retries, no handler.

    python -m benchmarks.floors.mysql_loop URL drain|single|latency N
"""

import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomysql  # type: ignore[import-untyped]

from jobmaster.cli.eventloop import run_async
from jobmaster.model.ids import new_id

BATCH_IN = 1_000
BATCH_OUT = 500
CONNECTIONS = 2
POLL_SECONDS = 0.005
DATA = '{"value":1}'

_ID = "id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY"
_JOB = f"{_ID}, st TINYINT NOT NULL, seq BIGINT NOT NULL, data MEDIUMBLOB NOT NULL, INDEX ready (st, seq)"
_AUDIT = f"{_ID}, data MEDIUMBLOB NOT NULL, finished BIGINT NOT NULL"
SCHEMA = (f"CREATE TABLE job ({_JOB}) ENGINE = InnoDB", f"CREATE TABLE audit ({_AUDIT}) ENGINE = InnoDB")

CLAIM = "SELECT id, data FROM job WHERE st = 0 ORDER BY seq LIMIT %s FOR UPDATE SKIP LOCKED"


async def connect(url: str) -> Any:
    parts = urlsplit(url)
    connection = await aiomysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        db=parts.path[1:],
        autocommit=True,
        charset="utf8mb4",
    )
    await execute(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    return connection


async def execute(connection: Any, text: str, values: object = None) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(text, values)
        return await cursor.fetchall()


async def enqueue(connection: Any, n: int) -> float:
    """Jobs per second, ids made by the client."""
    began = time.perf_counter()
    for start in range(0, n, BATCH_IN):
        rows = [f"('{new_id()}',0,{start + index},'{DATA}')" for index in range(min(BATCH_IN, n - start))]
        await execute(connection, f"INSERT INTO job VALUES {','.join(rows)}")
    return n / (time.perf_counter() - began)


async def claim(connection: Any, limit: int) -> Any:
    """Rows that are leased and committed as such."""
    await connection.begin()
    rows = await execute(connection, CLAIM, (limit,))
    if rows:
        ids = ",".join(f"'{row[0]}'" for row in rows)
        await execute(connection, f"UPDATE job SET st = 2 WHERE id IN ({ids})")
    await connection.commit()
    return rows


async def _loop(connection: Any) -> int:
    done = 0
    while claimed := await claim(connection, BATCH_OUT):
        now = time.time_ns() // 1_000
        audit = ",".join(f"('{job_id}','{data.decode()}',{now})" for job_id, data in claimed)
        ids = ",".join(f"'{job_id}'" for job_id, _ in claimed)
        await connection.begin()
        await execute(connection, f"INSERT INTO audit VALUES {audit}")
        await execute(connection, f"DELETE FROM job WHERE id IN ({ids})")
        await connection.commit()
        done += len(claimed)
    return done


async def drain(url: str, n: int) -> dict[str, float]:
    """Bulk enqueue, then the drain from connecting to the last audit row."""
    connection = await connect(url)
    for statement in SCHEMA:
        await execute(connection, statement)
    enqueued = await enqueue(connection, n)
    began = time.perf_counter()
    others = [await connect(url) for _ in range(CONNECTIONS)]
    done = await asyncio.gather(*map(_loop, others))
    elapsed = time.perf_counter() - began
    [[audited]] = await execute(connection, "SELECT count(*) FROM audit")
    assert audited == sum(done) == n, (audited, done, n)
    for each in (connection, *others):
        each.close()
    return {"enqueue_per_s": enqueued, "drain_per_s": n / elapsed}


async def single(url: str, n: int) -> dict[str, float]:
    """Milliseconds of one durable INSERT each."""
    connection = await connect(url)
    for statement in SCHEMA:
        await execute(connection, statement)
    values = []
    for number in range(n):
        began = time.perf_counter()
        await execute(connection, "INSERT INTO job VALUES (%s, 0, %s, %s)", (new_id(), number, DATA))
        values.append((time.perf_counter() - began) * 1e3)
    connection.close()
    return {"p50_ms": sorted(values)[n // 2]}


async def latency(url: str, n: int) -> dict[str, float]:
    """Milliseconds from the producer's insert to the consumer, who polls, holding the claimed job."""
    producer, consumer = await connect(url), await connect(url)
    for statement in SCHEMA:
        await execute(producer, statement)
    taken: asyncio.Queue[float] = asyncio.Queue()

    async def poll() -> None:
        while True:
            if await claim(consumer, 1):
                taken.put_nowait(time.perf_counter())
            else:
                await asyncio.sleep(POLL_SECONDS)

    poller = asyncio.create_task(poll())
    values = []
    for number in range(n):
        began = time.perf_counter()
        await execute(producer, "INSERT INTO job VALUES (%s, 0, %s, %s)", (new_id(), number, DATA))
        values.append((await asyncio.wait_for(taken.get(), 10) - began) * 1e3)
        await asyncio.sleep(0.02)
    poller.cancel()
    await asyncio.wait([poller])
    for each in (producer, consumer):
        each.close()
    return {"p50_ms": sorted(values)[n // 2], "p99_ms": sorted(values)[int(n * 0.99)]}


def main() -> None:
    url, what, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(run_async({"drain": drain, "single": single, "latency": latency}[what](url, n))))


if __name__ == "__main__":
    main()
