"""BulkMove: many watermarks in one statement. As an upsert of whole rows it would carry every schedule's data again."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Table
from sqlalchemy.engine import Dialect

from jobmaster.contracts.scheduling import Schedule, ScheduleState

CHUNK = 500

Moved = tuple[Schedule, Schedule]


class BulkMove:
    """UPDATE of what planning changes of schedules, each where its watermark is still the expected one."""

    def __init__(self, schedule: Table) -> None:
        self._table = schedule.name

    def run(self, connection: Connection, moved: Sequence[Moved]) -> None:
        """Those whose watermark is another one now are left alone."""
        for start in range(0, len(moved), CHUNK):
            chunk = moved[start : start + CHUNK]
            text, parameters = self.statement(connection.dialect, chunk)
            connection.exec_driver_sql(text, parameters)

    def statement(self, dialect: Dialect, moved: Sequence[Moved]) -> tuple[str, tuple[Any, ...]]:
        """Text and parameters for one chunk."""
        t = self._table
        rows = [_row(before, after) for before, after in moved]
        if dialect.name == "postgresql":
            text = (
                f"UPDATE {t} SET next_us = v.next_us, look_us = v.look_us, last_job = v.last_job, "
                f"status = CASE WHEN v.over THEN 'ended' ELSE {t}.status END, "
                f"state = CASE WHEN v.over THEN 'ended' ELSE {t}.state END "
                "FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::boolean[]) "
                "AS v(key, was, next_us, look_us, last_job, over) "
                f'WHERE {t}.key = v.key COLLATE "C" AND {t}.next_us = v.was'
            )
            return text, tuple(list(column) for column in zip(*rows, strict=True))
        if dialect.name == "sqlite":
            text = (
                f"UPDATE {t} SET next_us = v.value ->> 2, look_us = v.value ->> 3, last_job = v.value ->> 4, "
                f"status = CASE WHEN v.value ->> 5 THEN 'ended' ELSE {t}.status END, "
                f"state = CASE WHEN v.value ->> 5 THEN 'ended' ELSE {t}.state END "
                "FROM json_each(?) AS v "
                f"WHERE {t}.key = v.value ->> 0 AND {t}.next_us = v.value ->> 1"
            )
            return text, (msgspec.json.encode(rows).decode(),)
        given = " UNION ALL ".join(
            ["SELECT %s AS k, %s AS was, %s AS nxt, %s AS look, %s AS job, %s AS over_"] * len(rows)
        )
        text = (
            f"UPDATE {t} JOIN ({given}) AS v ON {t}.`key` = v.k SET {t}.look_us = v.look, {t}.last_job = v.job, "
            f"{t}.status = IF(v.over_, 'ended', {t}.status), {t}.state = IF(v.over_, 'ended', {t}.state), "
            f"{t}.next_us = v.nxt WHERE {t}.next_us = v.was"
        )
        return text, tuple(value.encode() if index == 0 else value for row in rows for index, value in enumerate(row))


def _row(before: Schedule, after: Schedule) -> tuple[Any, ...]:
    over = after.state is ScheduleState.ENDED
    return (before.key, before.next_us, after.next_us, after.look_us, after.last_job, over)
