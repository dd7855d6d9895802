"""What the parts of the SQL master stand on."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.rows import JobRows
from jobmaster.master.sql.tables import Tables

T = TypeVar("T")


class SqlPart:
    """A group of verbs. Each verb is one function of a connection, run in one transaction."""

    def __init__(self, engine: Engine, tables: Tables) -> None:
        self._engine = engine
        self._tables = tables
        self._rows = JobRows(tables)

    async def _write(self, fn: Callable[[Connection], T]) -> T:
        return await self._engine.write(fn)

    async def _read(self, fn: Callable[[Connection], T], *, at_once: bool = False) -> T:
        return await self._engine.read(fn, at_once=at_once)
