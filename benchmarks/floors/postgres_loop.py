"""The floor on Postgres: what hand-written asyncpg loops do that keep the same promise of durability and nothing else.

Bulk enqueue by COPY; two connections that claim 500, write audit rows and delete; single inserts; and a LISTEN/NOTIFY
loop of one producer and one consumer. No leases, no fences, no retries, no handler: Python only moves rows.

    python -m benchmarks.floors.postgres_loop URL drain|single|latency N
"""

import asyncio
import json
import sys
import time
from typing import Any

import asyncpg

from jobmaster.cli.eventloop import run_async
from jobmaster.model.ids import new_id

BATCH_IN = 1_000
BATCH_OUT = 500
CONNECTIONS = 2
DATA = b'{"value":1}'

SCHEMA = """
CREATE TABLE job (id uuid PRIMARY KEY, st smallint NOT NULL, seq bigint NOT NULL, data bytea NOT NULL);
CREATE INDEX ready ON job (seq) WHERE st = 0;
CREATE TABLE audit (id uuid PRIMARY KEY, data bytea NOT NULL, finished bigint NOT NULL);
"""

CLAIM = """
UPDATE job SET st = 2
WHERE id = ANY (ARRAY(SELECT id FROM job WHERE st = 0 ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED)) AND st = 0
RETURNING id, data
"""
AUDIT = "INSERT INTO audit SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bigint[])"
DELETE = "DELETE FROM job WHERE id = ANY ($1::uuid[])"
INSERT = "INSERT INTO job VALUES ($1, 0, $2, $3)"
ANNOUNCED = "WITH put AS (INSERT INTO job VALUES ($1, 0, $2, $3)) SELECT pg_notify('ready', '')"


async def enqueue(connection: Any, n: int) -> float:
    """Jobs per second, ids made by the client."""
    began = time.perf_counter()
    for start in range(0, n, BATCH_IN):
        records = [(new_id(), 0, start + index, DATA) for index in range(min(BATCH_IN, n - start))]
        await connection.copy_records_to_table("job", records=records)
    return n / (time.perf_counter() - began)


async def _loop(connection: Any) -> int:
    done = 0
    while claimed := await connection.fetch(CLAIM, BATCH_OUT):
        now = time.time_ns() // 1_000
        ids = [row[0] for row in claimed]
        async with connection.transaction():
            await connection.execute(AUDIT, ids, [row[1] for row in claimed], [now] * len(ids))
            await connection.execute(DELETE, ids)
        done += len(ids)
    return done


async def drain(url: str, n: int) -> dict[str, float]:
    """Bulk enqueue, then the drain from connecting to the last audit row."""
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA)
    enqueued = await enqueue(connection, n)
    began = time.perf_counter()
    others = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
    done = await asyncio.gather(*map(_loop, others))
    elapsed = time.perf_counter() - began
    audited = await connection.fetchval("SELECT count(*) FROM audit")
    assert audited == sum(done) == n, (audited, done, n)
    for each in (connection, *others):
        await each.close()
    return {"enqueue_per_s": enqueued, "drain_per_s": n / elapsed}


async def single(url: str, n: int) -> dict[str, float]:
    """Milliseconds of one prepared, durable INSERT each."""
    connection = await asyncpg.connect(url)
    await connection.execute(SCHEMA)
    insert = await connection.prepare(INSERT)
    values = []
    for number in range(n):
        began = time.perf_counter()
        await insert.fetch(new_id(), number, DATA)
        values.append((time.perf_counter() - began) * 1e3)
    await connection.close()
    return {"p50_ms": sorted(values)[n // 2]}


async def latency(url: str, n: int) -> dict[str, float]:
    """Milliseconds from the producer's insert, which notifies, to the consumer holding the claimed job."""
    producer, consumer = await asyncpg.connect(url), await asyncpg.connect(url)
    await producer.execute(SCHEMA)
    insert, claim = await producer.prepare(ANNOUNCED), await consumer.prepare(CLAIM)
    woken: asyncio.Queue[float] = asyncio.Queue()
    pending: set[asyncio.Task[None]] = set()

    async def take() -> None:
        rows = await claim.fetch(1)
        at = time.perf_counter()
        if rows:
            woken.put_nowait(at)

    def notified(*_: object) -> None:
        task = asyncio.get_running_loop().create_task(take())
        pending.add(task)
        task.add_done_callback(pending.discard)

    await consumer.add_listener("ready", notified)
    values = []
    for number in range(n):
        began = time.perf_counter()
        await insert.fetch(new_id(), number, DATA)
        values.append((await asyncio.wait_for(woken.get(), 10) - began) * 1e3)
        await asyncio.sleep(0.02)  # as long as the subject: what has slept longer is slower
    for each in (producer, consumer):
        await each.close()
    return {"p50_ms": sorted(values)[n // 2], "p99_ms": sorted(values)[int(n * 0.99)]}


def main() -> None:
    url, what, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    print(json.dumps(run_async({"drain": drain, "single": single, "latency": latency}[what](url, n))))


if __name__ == "__main__":
    main()
