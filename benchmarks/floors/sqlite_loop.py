"""The floor on SQLite: what a hand-written loop does that keeps the same promise of durability and nothing else.

One connection, WAL, synchronous=FULL. Insert in batches of 1,000; claim 500 by `UPDATE … RETURNING`; write an audit row
and delete, in one transaction a batch. No leases, no retries, no handler: Python only moves rows.
"""

import sqlite3
import time
from pathlib import Path

from jobmaster.model.ids import new_id

BATCH_IN = 1_000
BATCH_OUT = 500

SCHEMA = """
create table job (id text primary key, st integer not null, seq integer not null, data blob not null);
create index ready on job (seq) where st = 0;
create table audit (id text primary key, data blob not null, finished integer not null);
"""


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")
    return connection


def enqueue(connection: sqlite3.Connection, n: int) -> float:
    """Jobs per second."""
    data = b'{"value":1}'
    began = time.perf_counter()
    for start in range(0, n, BATCH_IN):
        rows = [(new_id(), start + index, data) for index in range(min(BATCH_IN, n - start))]
        connection.execute("begin immediate")
        connection.executemany("insert into job values (?, 0, ?, ?)", rows)
        connection.execute("commit")
    return n / (time.perf_counter() - began)


def drain(connection: sqlite3.Connection, n: int) -> float:
    """Jobs per second; raises unless every job was audited."""
    began = time.perf_counter()
    while True:
        connection.execute("begin immediate")
        claimed = connection.execute(
            "update job set st = 2 where id in (select id from job where st = 0 order by seq limit ?) "
            "returning id, data",
            (BATCH_OUT,),
        ).fetchall()
        connection.execute("commit")
        if not claimed:
            break
        now = time.time_ns() // 1_000
        connection.execute("begin immediate")
        connection.executemany("insert into audit values (?, ?, ?)", [(id_, data, now) for id_, data in claimed])
        connection.executemany("delete from job where id = ?", [(id_,) for id_, _ in claimed])
        connection.execute("commit")
    elapsed = time.perf_counter() - began
    (audited,) = connection.execute("select count(*) from audit").fetchone()
    assert audited == n, (audited, n)
    return n / elapsed


def run(folder: Path, n: int) -> tuple[float, float]:
    """(enqueue, drain) in jobs per second, on a fresh file."""
    path = folder / f"floor-{time.monotonic_ns()}.db"
    connection = connect(path)
    connection.executescript(SCHEMA)
    try:
        return enqueue(connection, n), drain(connection, n)
    finally:
        connection.close()
