"""Rows of `job` and `history`: reading them as jobs, and the guarded write that keeps every job in one of the two.

Reading locks where the database has row locks, so that what a verb decided still holds when it writes. Where a row did
not exist there is nothing to lock: there the guard in the upsert decides, and `bury` clears what a race has left.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from msgspec.structs import astuple
from sqlalchemy import CompoundSelect, Connection, Select, Table, and_, delete, exists, or_, select, union_all
from sqlalchemy.engine import RowMapping

from jobmaster.contracts.entries import Placement
from jobmaster.master.rules import Stamp, newer
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.dialects import among, among_given, ids_given
from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import JOB_FIELDS, Job
from jobmaster.model.states import FailReason, JobState

CHUNK = 500
"""Ids in one statement."""

_DEADLINES = ("dispatch_until_us", "put_deadline_us")


class JobRows:
    """The two job tables of one cluster."""

    def __init__(self, tables: Tables) -> None:
        self._job = tables.job
        self._history = tables.history
        self._upsert_live = BulkInsert(tables.job, (*JOB_FIELDS, *_DEADLINES), key=("id",), guarded=True)
        self._upsert_ended = BulkInsert(tables.history, JOB_FIELDS, key=("id",), guarded=True)
        self._insert_live = BulkInsert(tables.job, (*JOB_FIELDS, *_DEADLINES), key=("id",))
        job, history = tables.job.c, tables.history.c
        self._at_least = and_(
            history.id == job.id,
            or_(history.epoch > job.epoch, and_(history.epoch == job.epoch, history.version >= job.version)),
        )
        self._less = and_(
            history.id == job.id,
            or_(history.epoch < job.epoch, and_(history.epoch == job.epoch, history.version < job.version)),
        )

        # Building a statement costs several times what running it does.
        self._queries: dict[tuple[str, bool, bool], Select[Any]] = {}

        self._seen: CompoundSelect[Any] | None = None

    def live(self, connection: Connection, ids: Iterable[str], lock: bool = False) -> dict[str, Placement]:
        """Live rows by id; locked in id order where asked."""
        return {row["id"]: placement_of(row) for row in self._read(connection, self._job, ids, lock)}

    def ended(self, connection: Connection, ids: Iterable[str], lock: bool = False) -> dict[str, Job]:
        """History rows by id; locked in id order where asked."""
        return {row["id"]: job_of(row) for row in self._read(connection, self._history, ids, lock)}

    def known(self, connection: Connection, ids: Sequence[str], lock: bool = False) -> dict[str, Job]:
        """The newest of what is known of each job, history first."""
        known = {job_id: item.job for job_id, item in self.live(connection, ids, lock).items()}
        for job_id, job in self.ended(connection, ids, lock).items():
            if job_id not in known or not newer(known[job_id], job):
                known[job_id] = job
        return known

    def seen(self, connection: Connection, ids: Sequence[str]) -> dict[str, Job]:
        """`known` of up to `CHUNK` ids, in one statement."""
        if self._seen is None:
            tables = (self._job, self._history)
            parts = [
                select(*(table.c[name] for name in JOB_FIELDS)).where(among_given(connection, table.c.id))
                for table in tables
            ]
            self._seen = union_all(*parts)
        known: dict[str, Job] = {}
        for job in map(job_of, connection.execute(self._seen, ids_given(connection, [*ids])).mappings()):
            old = known.get(job.id)
            if old is None or newer(job, old) or (job.terminal and not newer(old, job)):
                known[job.id] = job
        return known

    def stamps(self, connection: Connection, ids: Sequence[str], lock: bool = True) -> dict[str, Stamp]:
        """How new the newest of what is known of each job is; locked in id order unless not asked for."""
        stamps: dict[str, Stamp] = {}
        for table in (self._job, self._history):
            for row in self._read(connection, table, ids, lock, whole=False):
                stamp = Stamp(row["epoch"], row["version"])
                if newer(stamp, stamps.get(row["id"])):
                    stamps[row["id"]] = stamp
        return stamps

    def _read(
        self, connection: Connection, table: Table, ids: Iterable[str], lock: bool, whole: bool = True
    ) -> Iterable[RowMapping]:
        query = self._queries.get((table.name, lock, whole))
        if query is None:
            query = select(*([table] if whole else [table.c.id, table.c.epoch, table.c.version]))
            query = query.where(among_given(connection, table.c.id))
            query = query.order_by(table.c.id).with_for_update() if lock else query
            self._queries[table.name, lock, whole] = query
        for chunk in chunks(ids):
            yield from connection.execute(query, ids_given(connection, chunk)).mappings()

    def insert(self, connection: Connection, placements: Sequence[Placement]) -> None:
        """New live rows, where the id is free."""
        self._insert_live.run(connection, [_live_values(item) for item in placements])

    def write(self, connection: Connection, placements: Sequence[Placement]) -> None:
        """Make each, where newer than what is there, the one row of its job: in the history if it has ended, else among
        the live ones."""
        live = [item for item in placements if not item.job.terminal]
        ended = [item.job for item in placements if item.job.terminal]
        if live:
            self._upsert_live.run(connection, [_live_values(item) for item in live])
            for ids in chunks(item.job.id for item in live):
                newer_live = exists(select(self._job.c.id).where(self._less))
                connection.execute(delete(self._history).where(among(connection, self._history.c.id, ids), newer_live))
        if ended:
            self._upsert_ended.run(connection, [astuple(job) for job in ended])
            self.bury(connection, [job.id for job in ended])

    def bury(self, connection: Connection, ids: Sequence[str]) -> int:
        """Delete those live rows whose history row is at least as new; how many."""
        return sum(
            connection.execute(
                delete(self._job).where(
                    among(connection, self._job.c.id, chunk), exists(select(self._history.c.id).where(self._at_least))
                )
            ).rowcount
            for chunk in chunks(ids)
        )

    def buried(self, states: Iterable[JobState], limit: int) -> Select[Any]:
        """The ids of live rows in those states whose history row is at least as new."""
        return (
            select(self._job.c.id)
            .join(self._history, self._at_least)
            .where(self._job.c.state.in_([*states]))
            .limit(limit)
        )


def chunks(ids: Iterable[str]) -> Iterable[list[str]]:
    """The distinct ids in order, `CHUNK` at a time."""
    rest = iter(sorted(set(ids)))
    while chunk := [*islice(rest, CHUNK)]:
        yield chunk


def job_of(row: RowMapping) -> Job:
    """The job in a row that has at least its columns."""
    values = {name: row[name] for name in JOB_FIELDS}
    values["state"] = JobState(values["state"])
    if values["reason"] is not None:
        values["reason"] = FailReason(values["reason"])
    return Job(**values)


def placement_of(row: RowMapping) -> Placement:
    return Placement(job_of(row), row["dispatch_until_us"], row["put_deadline_us"])


def _live_values(item: Placement) -> tuple[Any, ...]:
    return (*astuple(item.job), item.dispatch_until_us, item.put_deadline_us)
