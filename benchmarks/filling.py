"""Filling a Postgres database with jobs and history by SQL: copies of what `benchmarks.subject`'s `seed` left there."""

from typing import Any

import asyncpg

from benchmarks.subject import AGENT
from jobmaster_agents.postgres.tables import Tables

TABLES = Tables("bench", AGENT)

ID = """(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint - {n} + g), 12, '0') || '7' ||
         substr(md5(g::text || '{salt}'), 1, 3) || 'a' || substr(md5(g::text || '{salt}'), 4, 15))::uuid"""
"""A UUID of version 7, in the order of g."""


async def fill(url: str, ready: int, delayed: int, history: int) -> None:
    """That many copies of each pattern, counted in the lane's counts, and fresh statistics."""
    connection: Any = await asyncpg.connect(url)
    try:
        master = await connection.fetchval(
            "SELECT left(relname, -7) FROM pg_class WHERE relname LIKE 'jm\\_bench\\_%history' AND relkind = 'r'"
        )
        due = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 3600000000 + g"
        await _copy(connection, TABLES.job, "st = 0", ready, {"id": ID, "seq": "seq + g"})
        await _copy(connection, TABLES.job, "st = 1", delayed, {"id": ID, "seq": "seq + g", "due_us": due})
        await connection.execute(
            f"INSERT INTO {TABLES.count} (lane, ready, delayed) VALUES ('default', $1, $2)", ready, delayed
        )
        await _copy(connection, f"{master}history", "true", history, {"id": ID})
        await _copy(connection, f"{master}run", "true", history, {"job_id": ID})
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _copy(connection: Any, table: str, where: str, n: int, changed: dict[str, str]) -> None:
    if not n:
        return
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped", table
    )
    names = [row[0] for row in rows]
    salt = "delayed" if where == "st = 1" else "other"
    values = [changed[name].format(n=n, salt=salt) if name in changed else name for name in names]
    await connection.execute(
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} "
        f"FROM (SELECT * FROM {table} WHERE {where} LIMIT 1) AS pattern, generate_series(1, {n}) AS g",
        timeout=600,
    )
