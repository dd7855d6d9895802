"""An agent's outbox table in a master's database, as the move expects one, without an agent."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, MetaData, Table

from jobmaster.contracts.values import OutboxRecord
from jobmaster.master.sql import columns
from jobmaster.master.sql.tables import JOB_TYPES, RUN_TYPES
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
    marks = ", ".join("?" for _ in COLUMNS)
    for record in records:
        connection.execute(f"INSERT INTO {OUTBOX} ({', '.join(COLUMNS)}) VALUES ({marks})", outbox_row(record))


def outbox_row(record: OutboxRecord) -> tuple[Any, ...]:
    job = [None if record.job is None else getattr(record.job, name) for name in JOB_FIELDS]
    run = [None if record.run is None else getattr(record.run, name) for name in RUN_FIELDS]
    return (record.seq, record.kind, record.at_us, *job, *run, None)


def server_outbox(name: str) -> Table:
    """The same table for a database that takes types seriously."""
    job: list[Column[Any]] = [Column(f"job_{field}", kind) for field, (kind, _) in JOB_TYPES.items()]
    run: list[Column[Any]] = [Column(f"run_{field}", kind) for field, (kind, _) in RUN_TYPES.items()]
    first: list[Column[Any]] = [Column("seq", columns.Micros, primary_key=True), Column("kind", columns.name(8))]
    return Table(
        name, MetaData(), *first, Column("at_us", columns.Micros), *job, *run, Column("revoked", columns.Payload)
    )
