"""The move: plain outbox records of an agent in the master's own database become history and runs, server-side.

Four statements a batch, whatever its size, and no row comes to Python. Their text is written once per outbox. The guard
is the master's usual one: a job that is live or ended at an (epoch, version) as high stays as it is, and its record
goes all the same. Two movers at once are wasteful but right, since everything here may be done twice.

A row that a constraint refuses must not stop those behind it: the batch is halved until that row is alone.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError

from jobmaster.contracts.entries import MoveReport
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.dialects import blames_value
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.intake import SqlIntake
from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS
from jobmaster.model.states import TERMINAL
from jobmaster.telemetry.probes import probe

_NAME = re.compile("[a-z][a-z0-9_]{0,59}")
_TERMINAL = ", ".join(f"'{state}'" for state in sorted(TERMINAL))


class MoveTexts:
    """The statements for one outbox, with one placeholder style. Where two numbers are asked for, they are the seqs
    between which, both included, rows are moved."""

    def __init__(self, tables: Tables, outbox: str, dialect: Dialect) -> None:
        if not _NAME.fullmatch(outbox):
            raise ValueError(f"outbox {outbox!r} is no table name of ours")
        first, second = ("$1", "$2") if dialect.paramstyle == "numeric_dollar" else (_mark(dialect),) * 2
        history, run, job = tables.history.name, tables.run.name, tables.job.name
        plain = f"o.kind = 'plain' AND o.seq BETWEEN {first} AND {second}"
        ended = f"{plain} AND o.job_state IN ({_TERMINAL})"
        into_history = BulkInsert(tables.history, JOB_FIELDS, key=("id",), guarded=True).conflict(dialect)
        into_run = BulkInsert(tables.run, RUN_FIELDS, key=("job_id", "token")).conflict(dialect)
        self.pick = (
            "SELECT count(*), min(seq), max(seq) FROM "
            f"(SELECT seq FROM {outbox} WHERE kind = 'plain' ORDER BY seq LIMIT {first}) AS picked"
        )
        self.effects = f"SELECT count(*) FROM {outbox} WHERE kind = 'effect' AND seq <= {first}"
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
        self.clear = f"DELETE FROM {outbox} WHERE kind = 'plain' AND seq BETWEEN {first} AND {second}"
        self.seqs = f"SELECT seq FROM {outbox} WHERE kind = 'plain' AND seq BETWEEN {first} AND {second} ORDER BY seq"
        self.whole = f"SELECT * FROM {outbox} WHERE seq = {first}"


class SqlMove(SqlIntake):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._texts: dict[str, MoveTexts] = {}

    async def move(self, agent: str, outbox: str, limit: int) -> MoveReport:
        report, bad = await self._engine.write(
            lambda connection: self._move(connection, agent, outbox, max(limit, 1)),
            before_commit="move.before_commit",
            after_commit="move.after_commit",
        )
        if bad:
            probe("quarantined", bad)
        return report

    def _move(self, connection: Connection, agent: str, outbox: str, limit: int) -> tuple[MoveReport, int]:
        texts = self._texts.get(outbox)
        if texts is None:
            texts = self._texts[outbox] = MoveTexts(self._tables, outbox, connection.dialect)
        count, low, high = connection.exec_driver_sql(texts.pick, (limit,)).one()
        bad = 0
        if count:
            try:
                with connection.begin_nested():
                    _take(connection, texts, low, high)
            except DBAPIError as error:
                if not blames_value(error):
                    raise
                seqs = [row.seq for row in connection.exec_driver_sql(texts.seqs, (low, high))]
                bad = self._halve(connection, agent, texts, seqs)
        more = count == limit
        # What was passed over is counted; behind it, a backlog would be read anew at every call.
        effects = connection.exec_driver_sql(texts.effects, (high if more else 2**63 - 1,)).scalar_one()
        return MoveReport(moved=count - bad, effects=effects, more=more), bad

    def _halve(self, connection: Connection, agent: str, texts: MoveTexts, seqs: Sequence[int]) -> int:
        """Move what can be moved of a batch that failed; how many rows went into the quarantine."""
        try:
            with connection.begin_nested():
                _take(connection, texts, seqs[0], seqs[-1])
        except DBAPIError as error:
            if not blames_value(error):
                raise
            if len(seqs) > 1:
                middle = len(seqs) // 2
                return sum(self._halve(connection, agent, texts, half) for half in (seqs[:middle], seqs[middle:]))
            row = connection.exec_driver_sql(texts.whole, (seqs[0],)).mappings().one()
            self._quarantine(connection, agent, seqs[0], error, _raw(row))
            connection.exec_driver_sql(texts.clear, (seqs[0], seqs[0]))
            return 1
        return 0


def _take(connection: Connection, texts: MoveTexts, low: int, high: int) -> None:
    connection.exec_driver_sql(texts.history, (low, high))
    connection.exec_driver_sql(texts.runs, (low, high))
    # Where one database serves both tiers the live table is empty but for held jobs, and mostly quite empty.
    if connection.exec_driver_sql(texts.live).scalar_one():
        connection.exec_driver_sql(texts.bury, (low, high))
    connection.exec_driver_sql(texts.clear, (low, high))


def _raw(row: Any) -> bytes:
    """A row nobody could use, as JSON; bytes become base64."""
    return msgspec.json.encode(dict(row), enc_hook=str)


def _mark(dialect: Dialect) -> str:
    return {"qmark": "?", "format": "%s"}[dialect.paramstyle]
