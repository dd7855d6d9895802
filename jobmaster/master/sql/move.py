"""The move: plain outbox records of an agent in the master's own database become history and runs, server-side.

A few statements a batch, whatever its size, and no row comes to Python. The guard is the master's usual one: a job that
is live or ended at an (epoch, version) as high stays as it is, and its record goes all the same. Any number of movers
may be at it; what they write may be written twice.

A row that a constraint refuses must not stop those behind it: the batch is halved until that row is alone.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError

from jobmaster.contracts.entries import MoveReport
from jobmaster.master.rules import LARGEST
from jobmaster.master.sql.dialects import blames_value
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.intake import SqlIntake
from jobmaster.master.sql.move_postgres import PostgresMover
from jobmaster.master.sql.move_texts import NamedMover, RangeMover
from jobmaster.master.sql.tables import Tables
from jobmaster.telemetry.probes import probe


class Mover(Protocol):
    """How one outbox is emptied in one kind of database."""

    def move(self, connection: Connection, limit: int) -> tuple[int, int]: ...
    def pick(self, connection: Connection, limit: int) -> list[int]: ...
    def take(self, connection: Connection, seqs: Sequence[int]) -> None: ...
    def effects(self, connection: Connection, high: int) -> int: ...
    def remove(self, connection: Connection, seq: int) -> dict[str, Any]: ...


class SqlMove(SqlIntake):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._movers: dict[str, Mover] = {}

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
        mover = self._mover(connection, outbox)
        bad = 0
        try:
            with connection.begin_nested():
                count, high = mover.move(connection, limit)
        except DBAPIError as error:
            if not blames_value(error):
                raise
            seqs = mover.pick(connection, limit)
            count, high = len(seqs), max(seqs, default=0)
            bad = self._halve(connection, agent, mover, seqs) if seqs else 0
        more = count == limit
        # What was passed over is counted; behind it, a backlog would be read anew at every call.
        effects = mover.effects(connection, high if more else LARGEST)
        return MoveReport(moved=count - bad, effects=effects, more=more), bad

    def _mover(self, connection: Connection, outbox: str) -> Mover:
        mover = self._movers.get(outbox)
        if mover is None:
            mover = self._movers[outbox] = mover_of(connection.dialect, self._tables, outbox)
        return mover

    def _halve(self, connection: Connection, agent: str, mover: Mover, seqs: Sequence[int]) -> int:
        """Move what can be moved of a batch that failed; how many rows went into the quarantine."""
        try:
            with connection.begin_nested():
                mover.take(connection, seqs)
        except DBAPIError as error:
            if not blames_value(error):
                raise
            if len(seqs) > 1:
                middle = len(seqs) // 2
                return sum(self._halve(connection, agent, mover, half) for half in (seqs[:middle], seqs[middle:]))
            # A row nobody could use is kept as JSON; bytes become base64.
            row = mover.remove(connection, seqs[0])
            self._quarantine(connection, agent, seqs[0], error, msgspec.json.encode(row, enc_hook=str))
            return 1
        return 0


def mover_of(dialect: Dialect, tables: Tables, outbox: str) -> Mover:
    """How that outbox is emptied in that database. Raises `ValueError` for a name that is no table of ours."""
    if dialect.name == "postgresql":
        return PostgresMover(tables, outbox, dialect)
    return RangeMover(tables, outbox, dialect) if dialect.name == "sqlite" else NamedMover(tables, outbox, dialect)
