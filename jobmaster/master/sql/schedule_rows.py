"""Rows of `schedule` and `occurrence`: reading them as values, and writing them set by set."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.engine import RowMapping

from jobmaster.contracts.scheduling import Occurrence, Schedule, ScheduleState, TickState
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.moving import BulkMove
from jobmaster.master.sql.tables import Tables
from jobmaster.master.ticks import interval_of
from jobmaster.model.terms import Terms, decode_terms
from jobmaster.recurrence import Recurrence

_PLAIN = Terms()
KEYS = 200
"""Keys in one statement."""

SCHEDULE = (
    "key",
    "handler",
    "interval_us",
    "anchor_us",
    "next_us",
    "state",
    "lane",
    "priority",
    "agent",
    "data",
    "policy",
    "labels",
    "created_us",
    "recurrence",
    "terms",
    "profile",
    "status",
    "look_us",
    "last_job",
    "retire_us",
    "version",
)
OCCURRENCE = ("schedule", "tick_us", "job_id", "state", "note", "planned_us")


class ScheduleRows:
    """The tables of schedules of one cluster."""

    def __init__(self, tables: Tables) -> None:
        self._schedule = tables.schedule
        self._occurrence = tables.occurrence
        self._save = BulkInsert(tables.schedule, SCHEDULE, key=("key",), replacing=True)
        self._enter = BulkInsert(tables.occurrence, OCCURRENCE, key=("schedule", "tick_us"))
        self._renew = BulkInsert(tables.occurrence, OCCURRENCE, key=("schedule", "tick_us"), replacing=True)
        self._move = BulkMove(tables.schedule)

    def by_key(self, connection: Connection, keys: Iterable[str], lock: bool = False) -> dict[str, Schedule]:
        """Locked in key order where asked."""
        found: dict[str, Schedule] = {}
        for chunk in batches(sorted(set(keys), key=str.encode), KEYS):
            query = select(self._schedule).where(self._schedule.c.key.in_(chunk)).order_by(self._schedule.c.key)
            rows = connection.execute(query.with_for_update() if lock else query).mappings()
            found |= {schedule.key: schedule for schedule in map(schedule_of, rows)}
        return found

    def ticks(
        self, connection: Connection, keys: Sequence[str], first_us: int, last_us: int
    ) -> dict[tuple[str, int], Occurrence]:
        """The occurrences of those schedules in that span."""
        tick = self._occurrence.c
        found: list[RowMapping] = []
        if connection.dialect.name == "postgresql" and keys:
            # A list of parameters would be written, parsed and planned anew for every batch.
            text = (
                f"SELECT {', '.join(OCCURRENCE)} FROM {self._occurrence.name} "
                "WHERE schedule = ANY ($1::text[]) AND tick_us BETWEEN $2 AND $3"
            )
            found += connection.exec_driver_sql(text, ([*keys], first_us, last_us)).mappings()
        else:
            for chunk in batches(keys, KEYS):
                query = select(self._occurrence).where(tick.schedule.in_(chunk))
                found += connection.execute(query.where(tick.tick_us.between(first_us, last_us))).mappings()
        return {(row["schedule"], row["tick_us"]): occurrence_of(row) for row in found}

    def save(self, connection: Connection, schedules: Iterable[Schedule]) -> None:
        """Insert them, or replace what is there."""
        self._save.run(connection, [_values(schedule) for schedule in schedules])

    def move(self, connection: Connection, moved: Sequence[tuple[Schedule, Schedule]]) -> None:
        """Set what planning changes, from what it was to what it is, where the watermark is still what it was."""
        self._move.run(connection, moved)

    def enter(self, connection: Connection, occurrences: Sequence[Occurrence]) -> None:
        """New ones; one that is there stays."""
        self._enter.run(connection, [_tick_values(occurrence) for occurrence in occurrences])

    def renew(self, connection: Connection, occurrences: Sequence[Occurrence]) -> None:
        """Replace those that are there."""
        self._renew.run(connection, [_tick_values(occurrence) for occurrence in occurrences])


def schedule_of(row: RowMapping) -> Schedule:
    """The schedule in a row; of one that the first revision wrote, what it means."""
    recurrence = row["recurrence"]
    if recurrence is None:
        recurrence = Recurrence.of(timedelta(microseconds=row["interval_us"])).to_json()
    ended = row["state"] == ScheduleState.ENDED
    return Schedule(
        key=row["key"],
        handler=row["handler"],
        recurrence=recurrence,
        terms=_terms(row["terms"]),
        profile=row["profile"],
        lane=row["lane"],
        priority=row["priority"],
        agent=row["agent"],
        data=row["data"],
        policy=row["policy"],
        labels=row["labels"],
        anchor_us=row["anchor_us"],
        created_us=row["created_us"],
        state=ScheduleState.ENDED if ended else ScheduleState(row["status"]),
        next_us=row["next_us"],
        look_us=row["look_us"],
        last_job=row["last_job"],
        retire_us=row["retire_us"],
        version=row["version"],
    )


def occurrence_of(row: RowMapping) -> Occurrence:
    values: dict[str, Any] = {name: row[name] for name in OCCURRENCE}
    values["state"] = TickState(values["state"])
    return Occurrence(**values)


def batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def old_state(schedule: Schedule) -> str:
    """What a process of the first revision takes it for: it would plan by an interval, and by nothing else."""
    plain = interval_of(schedule) is not None and schedule.terms == _PLAIN and schedule.retire_us is None
    if schedule.state is ScheduleState.ACTIVE and not plain:
        return ScheduleState.PAUSED.value
    return schedule.state.value


def _terms(raw: bytes | None) -> Terms:
    try:
        return decode_terms(raw)
    except msgspec.DecodeError:
        return _PLAIN


def _values(schedule: Schedule) -> tuple[Any, ...]:
    return (
        schedule.key,
        schedule.handler,
        interval_of(schedule) or 0,
        schedule.anchor_us,
        schedule.next_us,
        old_state(schedule),
        schedule.lane,
        int(schedule.priority),
        schedule.agent,
        schedule.data,
        schedule.policy,
        schedule.labels,
        schedule.created_us,
        schedule.recurrence,
        schedule.terms.encode(),
        schedule.profile,
        schedule.state.value,
        schedule.look_us,
        schedule.last_job,
        schedule.retire_us,
        schedule.version,
    )


def _tick_values(occurrence: Occurrence) -> tuple[Any, ...]:
    return (
        occurrence.schedule,
        occurrence.tick_us,
        occurrence.job_id,
        occurrence.state.value,
        occurrence.note,
        occurrence.planned_us,
    )
