"""The move's statements for one outbox on SQLite or MySQL: insert the jobs, insert the runs, bury what was live, clear.

All but the last may be run again. They need the same records to be there from first to last, so each batch is named:
by its first and last seq on SQLite, where writers take turns; elsewhere by every seq, since a record with one between
those two may be committed at any time.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect

from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster.model.states import TERMINAL

ENDED = ", ".join(f"'{state}'" for state in sorted(TERMINAL))

_NAME = re.compile("[a-z][a-z0-9_]{0,59}")


def check_outbox(name: str) -> str:
    """The name, which will be part of statements. Raises `ValueError`."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"outbox {name!r} is no table name of ours")
    return name


class MoveTexts:
    """Where `{these}` stands, a statement wants the condition that names a batch."""

    def __init__(self, tables: Tables, outbox: str, dialect: Dialect) -> None:
        check_outbox(outbox)
        self.mark = {"qmark": "?", "format": "%s", "numeric_dollar": "$1"}[dialect.paramstyle]
        history, run, job = tables.history.name, tables.run.name, tables.job.name
        plain = "o.kind = 'plain' AND o.seq {these}"
        ended = f"{plain} AND o.job_state IN ({ENDED})"
        into_history = BulkInsert(tables.history, JOB_FIELDS, key=("id",), guarded=True).conflict(dialect)
        into_run = BulkInsert(tables.run, RUN_FIELDS, key=("job_id", "token")).conflict(dialect)
        self.oldest = f"SELECT seq FROM {outbox} WHERE kind = 'plain' ORDER BY seq LIMIT {self.mark}"
        self.bounds = f"SELECT count(*), min(seq), max(seq) FROM ({self.oldest}) AS picked"
        self.effects = f"SELECT count(*) FROM {outbox} WHERE kind = 'effect' AND seq <= {self.mark}"
        self.history = (
            f"INSERT INTO {history} ({', '.join(JOB_FIELDS)}) "
            f"SELECT {', '.join(f'o.job_{name}' for name in JOB_FIELDS)} FROM {outbox} AS o WHERE {ended} "
            f"AND NOT EXISTS (SELECT 1 FROM {job} AS j WHERE j.id = o.job_id "
            f"AND (j.epoch, j.version) >= (o.job_epoch, o.job_version)) {into_history}"
        )
        self.runs = (
            f"INSERT INTO {run} ({', '.join(RUN_FIELDS)}) "
            f"SELECT {', '.join(f'o.run_{name}' for name in RUN_FIELDS)} FROM {outbox} AS o "
            f"WHERE {plain} AND o.run_job_id IS NOT NULL {into_run}"
        )
        self.live = f"SELECT EXISTS (SELECT 1 FROM {job})"
        self.bury = (
            f"DELETE FROM {job} WHERE id IN (SELECT o.job_id FROM {outbox} AS o WHERE {ended}) "
            f"AND EXISTS (SELECT 1 FROM {history} AS h WHERE h.id = {job}.id "
            f"AND (h.epoch, h.version) >= ({job}.epoch, {job}.version))"
        )
        self.clear = f"DELETE FROM {outbox} WHERE kind = 'plain' AND seq {{these}}"
        self.whole = f"SELECT * FROM {outbox} WHERE seq = {self.mark}"


class RangeMover:
    """SQLite's way: a batch is everything between two seqs."""

    def __init__(self, tables: Tables, outbox: str, dialect: Dialect) -> None:
        self.texts = MoveTexts(tables, outbox, dialect)
        these = f"BETWEEN {self.texts.mark} AND {self.texts.mark}"
        texts = (self.texts.history, self.texts.runs, self.texts.bury, self.texts.clear)
        self.history, self.runs, self.bury, self.clear = (text.format(these=these) for text in texts)

    def move(self, connection: Connection, limit: int) -> tuple[int, int]:
        """Move the oldest plain records; how many, and the seq of the last."""
        count, low, high = connection.exec_driver_sql(self.texts.bounds, (limit,)).one()
        if count:
            self._take(connection, low, high)
        return count, high or 0

    def pick(self, connection: Connection, limit: int) -> list[int]:
        """Their seqs."""
        return [row.seq for row in connection.exec_driver_sql(self.texts.oldest, (limit,))]

    def take(self, connection: Connection, seqs: Sequence[int]) -> None:
        """Move those."""
        self._take(connection, seqs[0], seqs[-1])

    def effects(self, connection: Connection, high: int) -> int:
        count: int = connection.exec_driver_sql(self.texts.effects, (high,)).scalar_one()
        return count

    def remove(self, connection: Connection, seq: int) -> dict[str, Any]:
        """Take one record out; what it held."""
        row = connection.exec_driver_sql(self.texts.whole, (seq,)).mappings().one()
        connection.exec_driver_sql(self.clear, (seq, seq))
        return dict(row)

    def _take(self, connection: Connection, low: int, high: int) -> None:
        connection.exec_driver_sql(self.history, (low, high))
        connection.exec_driver_sql(self.runs, (low, high))
        # Where one database serves both tiers the live table is empty but for held jobs, and mostly quite empty.
        if connection.exec_driver_sql(self.texts.live).scalar_one():
            connection.exec_driver_sql(self.bury, (low, high))
        connection.exec_driver_sql(self.clear, (low, high))


class NamedMover:
    """MySQL's way: a batch is locked, and named seq by seq.

    What is deleted is named by its primary key, and by nothing else the server may look for it: it would read a table
    whole that is not much larger than the batch, and wait for each row that another mover, or a planner, has locked."""

    def __init__(self, tables: Tables, outbox: str, dialect: Dialect) -> None:
        self.texts = MoveTexts(tables, outbox, dialect)
        job, history = tables.job.name, tables.history.name
        ended = f"o.kind = 'plain' AND o.seq {{these}} AND o.job_state IN ({ENDED})"
        self.live = (
            f"SELECT j.id FROM {outbox} AS o STRAIGHT_JOIN {job} AS j FORCE INDEX (PRIMARY) ON j.id = o.job_id "
            f"WHERE {ended}"
        )
        self.bury = (
            f"DELETE j FROM {job} AS j FORCE INDEX (PRIMARY) WHERE j.id IN ({{ids}}) "
            f"AND EXISTS (SELECT 1 FROM {history} AS h "
            "WHERE h.id = j.id AND (h.epoch, h.version) >= (j.epoch, j.version))"
        )
        self.clear = f"DELETE o FROM {outbox} AS o FORCE INDEX (PRIMARY) WHERE o.kind = 'plain' AND o.seq {{these}}"

    def move(self, connection: Connection, limit: int) -> tuple[int, int]:
        """Move the oldest plain records that no other mover has; how many, and the seq of the last."""
        seqs = self.pick(connection, limit)
        if seqs:
            self.take(connection, seqs)
        return len(seqs), seqs[-1] if seqs else 0

    def pick(self, connection: Connection, limit: int) -> list[int]:
        """Their seqs, locked."""
        text = f"{self.texts.oldest} FOR UPDATE SKIP LOCKED"
        return [row.seq for row in connection.exec_driver_sql(text, (limit,))]

    def take(self, connection: Connection, seqs: Sequence[int]) -> None:
        """Move those."""
        # Numbers of our own, so they may be part of the text; as parameters the driver would write them in as well.
        these = f"IN ({', '.join(map(str, seqs))})"
        connection.exec_driver_sql(self.texts.history.format(these=these))
        connection.exec_driver_sql(self.texts.runs.format(these=these))
        live = sorted({row.id for row in connection.exec_driver_sql(self.live.format(these=these))})
        if live:
            marks = ", ".join([self.texts.mark] * len(live))
            connection.exec_driver_sql(self.bury.format(ids=marks), tuple(live))
        connection.exec_driver_sql(self.clear.format(these=these))

    def effects(self, connection: Connection, high: int) -> int:
        count: int = connection.exec_driver_sql(self.texts.effects, (high,)).scalar_one()
        return count

    def remove(self, connection: Connection, seq: int) -> dict[str, Any]:
        """Take one record out; what it held."""
        row = connection.exec_driver_sql(self.texts.whole, (seq,)).mappings().one()
        connection.exec_driver_sql(self.clear.format(these=f"IN ({seq})"))
        return dict(row)
