"""Forgetting on Postgres: one statement finds the oldest of a group, deletes them and their runs, and no row travels.

What is found is locked, and what others have locked is passed over: several coordinators share the work, and a job that
is being redriven keeps its runs.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from jobmaster.master.parts import FAR
from jobmaster.master.sql.tables import Tables
from jobmaster.model.states import JobState


class PostgresPruner:
    """The statement for one master, and where each group's last batch ended: before that stand the entries of what is
    gone, until a vacuum, and reading them again takes longer than deleting."""

    def __init__(self, tables: Tables) -> None:
        history, run = tables.history.name, tables.run.name
        self._text = f"""WITH old AS MATERIALIZED (
                SELECT id FROM {history} WHERE state = $1 AND lane = $2 AND finished_us >= $3 AND finished_us < $4
                AND (id < $6::text::uuid OR id >= $7::text::uuid)
                ORDER BY state, lane, finished_us LIMIT $5 FOR UPDATE SKIP LOCKED
            ), gone AS (
                DELETE FROM {history} WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id, finished_us
            ), ran AS (
                DELETE FROM {run} WHERE job_id = ANY (ARRAY(SELECT id FROM gone))
            )
            SELECT count(*), max(finished_us) FROM gone"""
        self._floors: dict[tuple[JobState, str], int] = {}

    def prune(
        self,
        connection: Connection,
        groups: Iterable[tuple[JobState, str]],
        before_us: int,
        limit: int,
        below: str | None,
    ) -> int:
        """Delete up to so many that ended before, group by group; how many."""
        gone = 0
        bounds = (FAR, FAR) if below is None else (below, FAR)
        for state, lane in groups:
            floor = self._floors.pop((state, lane), 0)
            # A batch that is not full is looked for from the start: something may have been reported late.
            for from_us in (floor, 0) if floor else (0,):
                if gone == limit:
                    break
                given = (state.value, lane, from_us, before_us, limit - gone, *bounds)
                count, last_us = connection.exec_driver_sql(self._text, given).one()
                gone += count
                if gone == limit and count:
                    self._floors[state, lane] = last_us
        return gone
