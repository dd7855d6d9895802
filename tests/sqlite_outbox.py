"""An agent's outbox table in a SQLite master's database, as the move expects one, without an agent."""

import sqlite3
from collections.abc import Sequence

from jobmaster.contracts.values import OutboxRecord
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS

OUTBOX = "jm_test_transport_1_abcdef_outbox"
COLUMNS = (
    "seq",
    "kind",
    "at_us",
    *(f"job_{name}" for name in JOB_FIELDS),
    *(f"run_{name}" for name in RUN_FIELDS),
    "revoked",
)


def create_outbox(connection: sqlite3.Connection) -> None:
    rest = ", ".join(COLUMNS[1:])
    connection.execute(f"CREATE TABLE IF NOT EXISTS {OUTBOX} (seq INTEGER PRIMARY KEY AUTOINCREMENT, {rest})")


def fill_outbox(connection: sqlite3.Connection, records: Sequence[OutboxRecord]) -> None:
    for record in records:
        job = [None if record.job is None else getattr(record.job, name) for name in JOB_FIELDS]
        run = [None if record.run is None else getattr(record.run, name) for name in RUN_FIELDS]
        marks = ", ".join("?" for _ in COLUMNS)
        row = (record.seq, record.kind, record.at_us, *job, *run, None)
        connection.execute(f"INSERT INTO {OUTBOX} ({', '.join(COLUMNS)}) VALUES ({marks})", row)
