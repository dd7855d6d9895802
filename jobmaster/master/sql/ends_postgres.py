"""Ends on Postgres: a batch of outbox records that nothing has to be asked about first, in one statement.

A job that ended and concerns nobody else is what nearly every record of a separate agent is about. The statement is the
move's, with the records given instead of picked from an outbox; it refuses what `rules.take_in` would.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import astuple
from sqlalchemy import Connection
from sqlalchemy.engine import Dialect

from jobmaster.contracts.entries import ApplyAnswer
from jobmaster.contracts.values import OutboxRecord, RecordKind
from jobmaster.master.sql.bulk_postgres import array_of, kind_of, sent
from jobmaster.master.sql.move_postgres import taking_in
from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS

_RUN = RUN_FIELDS[1:]
assert RUN_FIELDS[0] == "job_id"


def are_ends(records: Sequence[OutboxRecord]) -> bool:
    """Whether each is about a run that ended its job for good, and no two are about one job."""
    ids = {
        record.job.id
        for record in records
        if record.kind is RecordKind.PLAIN
        and record.revoked is None
        and record.job is not None
        and record.job.terminal
        and record.run is not None
        and record.run.job_id == record.job.id
    }
    return len(ids) == len(records)


class Ends:
    """The statement for one master."""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self._kinds = [kind_of(tables.history, name, dialect) for name in JOB_FIELDS]
        self._kinds += [kind_of(tables.run, name, dialect) for name in _RUN]
        # The length of the first is the number of rows; a column that may be NULL is filled up with NULL otherwise.
        self._fixed = [name == "id" or bool(tables.history.c[name].nullable) for name in JOB_FIELDS]
        self._fixed += [bool(tables.run.c[name].nullable) for name in _RUN]
        names = [*(f"job_{name}" for name in JOB_FIELDS), *(f"run_{name}" for name in _RUN)]
        arrays = [array_of(number, kind) for number, kind in enumerate(self._kinds, 1)]
        values = [
            f"u.{name}" if fixed else f"coalesce(u.{name}, ({array})[1]) AS {name}"
            for name, fixed, array in zip(names, self._fixed, arrays, strict=True)
        ]
        picked = (
            f"SELECT u.job_id AS run_job_id, {', '.join(values)} "
            f"FROM unnest({', '.join(arrays)}) AS u ({', '.join(names)})"
        )
        told = "SELECT id::text FROM written UNION SELECT job_id::text FROM ran"
        self.text = f"{taking_in(tables, dialect, picked)} {told}"

    def write(self, connection: Connection, records: Sequence[OutboxRecord]) -> list[ApplyAnswer]:
        """Write records that `are_ends`; what became of each."""
        rows = [(*astuple(record.job), *astuple(record.run)[1:]) for record in records if record.job and record.run]
        columns: list[Any] = [
            sent(kind, fixed, [*column])
            for kind, fixed, column in zip(self._kinds, self._fixed, zip(*rows, strict=True), strict=True)
        ]
        told = {row[0] for row in connection.exec_driver_sql(self.text, tuple(columns))}
        return [
            ApplyAnswer.APPLIED if record.job is not None and record.job.id in told else ApplyAnswer.OLD
            for record in records
        ]
