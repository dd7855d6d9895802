"""The history's parts on Postgres, where `history` and `run` are partitioned by id: looked at, cut and folded by the
functions that migrations make."""

import re
import time
from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection

from jobmaster.contracts.entries import Expiry, Forgotten
from jobmaster.master import parts
from jobmaster.master.parts import Part, Span
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.tables import Tables

MOST = 100_000
"""Jobs that a fold may copy. A part of which more have to stay is not worth it: what is old there is deleted."""
AGAIN_SECONDS = 3_600.0
"""After which such a part is looked at again."""

_ANSWERED = {"done": True, "many": False}
_BOUNDS = re.compile(r"FROM \((?:MINVALUE|'([0-9a-f-]+)')\) TO \('([0-9a-f-]+)'\)")


class PostgresParts:
    """Those of one master."""

    def __init__(self, engine: Engine, tables: Tables) -> None:
        self._engine = engine
        self._prefix = tables.prefix
        self._bounds = (
            "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
            f"WHERE i.inhparent = to_regclass('{tables.history.name}')"
        )
        self._answers: dict[Span, bool] = {}
        self._ask_again = 0.0

    async def forget(self, kept: Sequence[tuple[Expiry, int]]) -> Forgotten:
        """One step: a cut where it is time for one, and one fold at most."""
        keep_us = parts.shortest_us(kept)
        if keep_us is None:
            return Forgotten()
        if time.monotonic() >= self._ask_again:
            self._answers.clear()
            self._ask_again = time.monotonic() + AGAIN_SECONDS
        now_us, found = await self._engine.read(self._look)
        if not found:
            return Forgotten()
        at = parts.cut_at(found, now_us, keep_us)
        if at is not None:
            await self._call(f"SELECT {self._prefix}cut($1::text::uuid)", (at,))
        old = parts.old(found, now_us, keep_us)
        span = parts.next_fold(old, self._answers)
        if span is None:
            return Forgotten(below=(old or found[:1])[-1].until)
        given = (*span, _rules(kept, now_us), MOST)
        text = f"SELECT {self._prefix}fold($1::text::uuid, $2::text::uuid, $3::text::jsonb, $4)"
        answer = await self._call(text, given)
        if answer in _ANSWERED:
            self._answers[span] = _ANSWERED[answer]
        # Who was in the way is gone soon; or was another coordinator, who has done it.
        return Forgotten(below=found[0].until, more=answer != "sealed")

    def _look(self, connection: Connection) -> tuple[int, list[Part]]:
        """Store time, and the parts that tell a time, in order; none where the database has none."""
        if connection.dialect.name != "postgresql":
            return 0, []
        bounds = [_BOUNDS.search(row[0]) for row in connection.exec_driver_sql(self._bounds)]
        found = [Part(match[1], match[2]) for match in bounds if match is not None]
        return self._engine.now_us(connection), sorted(found, key=lambda part: part.until)

    async def _call(self, text: str, given: tuple[object, ...]) -> str:
        """The answer of one of the functions. On a connection that may take its time, and one process at a time."""
        return await self._engine.change_schema(
            lambda connection: str(connection.exec_driver_sql(text, given).scalar_one())
        )


def _rules(kept: Sequence[tuple[Expiry, int]], now_us: int) -> str:
    """What goes, for `fold`."""
    rules = [
        {
            "states": sorted(which.states),
            "handler": which.handler,
            "besides": sorted(which.besides),
            "before_us": now_us - keep_us,
        }
        for which, keep_us in kept
        if which.states
    ]
    return msgspec.json.encode(rules).decode()
