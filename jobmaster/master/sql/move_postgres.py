"""The move on Postgres: one statement that deletes records from the outbox and writes what it deleted.

So nothing can leave the outbox that was not written: a record committed meanwhile, with a seq between two of the batch,
is in none of its parts. (Reading a range, writing, and deleting the range would be three snapshots under READ
COMMITTED, and would delete such a record unwritten.) Movers share the work by SKIP LOCKED.
"""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect

from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.move_texts import ENDED, check_outbox
from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS

FLOOR_SECONDS = 2.0
"""How long a backlog is moved from where the last batch ended. What was committed below that in the meantime waits this
long; what is read again at every batch otherwise are the entries of moved records, which stay while any transaction
on the server is older than they are."""

MOST_EFFECTS = 1_000
"""Effect records are counted up to here: who asks wants to know whether there are any."""


class PostgresMover:
    """The statements for one outbox, and where the last batch ended."""

    def __init__(self, tables: Tables, outbox: str, dialect: Dialect) -> None:
        check_outbox(outbox)
        self.oldest = (
            f"SELECT seq FROM {outbox} WHERE kind = 'plain' AND seq > $2 ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED"
        )
        picked = f"DELETE FROM {outbox} WHERE seq = ANY ({{seqs}}) AND kind = 'plain' RETURNING *"
        moving = f"{taking_in(tables, dialect, picked)} SELECT count(*), max(seq) FROM picked"
        self.moving = moving.format(seqs=f"ARRAY({self.oldest})")
        self.moving_named = moving.format(seqs="$1::bigint[]")
        few = f"SELECT 1 FROM {outbox} WHERE kind = 'effect' AND seq <= $1 LIMIT {MOST_EFFECTS}"
        self.counting = f"SELECT count(*) FROM ({few}) AS few"
        self.removing = f"DELETE FROM {outbox} WHERE seq = $1 RETURNING *"
        self._floor = 0
        self._floor_until = 0.0

    def move(self, connection: Connection, limit: int) -> tuple[int, int]:
        """Move the oldest plain records that no other mover has; how many, and the seq of the last."""
        floor = self._floor if time.monotonic() < self._floor_until else 0
        count, high = connection.exec_driver_sql(self.moving, (limit, floor)).one()
        if floor and count < limit:
            # Nothing above: what is below was only passed over.
            more, last = connection.exec_driver_sql(self.moving, (limit - count, 0)).one()
            count, high, floor = count + more, max(high or 0, last or 0), 0
        if count < limit:
            self._floor_until = 0.0
        else:
            self._floor = high
            self._floor_until = self._floor_until if floor else time.monotonic() + FLOOR_SECONDS
        return count, high or 0

    def pick(self, connection: Connection, limit: int) -> list[int]:
        """Their seqs, locked."""
        return [row.seq for row in connection.exec_driver_sql(self.oldest, (limit, 0))]

    def take(self, connection: Connection, seqs: Sequence[int]) -> None:
        """Move those."""
        connection.exec_driver_sql(self.moving_named, ([*seqs],))

    def effects(self, connection: Connection, high: int) -> int:
        """How many effect records there are up to that seq, or `MOST_EFFECTS`."""
        count: int = connection.exec_driver_sql(self.counting, (high,)).scalar_one()
        return count

    def remove(self, connection: Connection, seq: int) -> dict[str, Any]:
        """Take one record out; what it held."""
        return dict(connection.exec_driver_sql(self.removing, (seq,)).mappings().one())


def taking_in(tables: Tables, dialect: Dialect, picked: str) -> str:
    """WITH and its parts, that write records in columns named as an outbox's, which `picked` gives. `written` and `ran`
    give the ids of what they wrote."""
    history, run, job = tables.history.name, tables.run.name, tables.job.name
    into_history = BulkInsert(tables.history, JOB_FIELDS, key=("id",), guarded=True).conflict(dialect)
    into_run = BulkInsert(tables.run, RUN_FIELDS, key=("job_id", "token")).conflict(dialect)
    # `ended`: an upsert may touch a row once, so of several ends of one job it gets the newest. In id order, as
    # every write of several rows, so that two movers can't wait for each other.
    # `buried`: a live row at the very same (epoch, version) stays, as the end was not written then either.
    return (
        f"WITH picked AS ({picked}), "
        "ended AS (SELECT DISTINCT ON (job_id) * FROM picked "
        f"WHERE job_state IN ({ENDED}) ORDER BY job_id, job_epoch DESC, job_version DESC), "
        f"written AS (INSERT INTO {history} ({', '.join(JOB_FIELDS)}) "
        f"SELECT {_columns('job', JOB_FIELDS, 'id')} FROM ended AS o "
        f"WHERE NOT EXISTS (SELECT 1 FROM {job} AS j WHERE j.id = o.job_id::uuid "
        f"AND (j.epoch, j.version) >= (o.job_epoch, o.job_version)) {into_history} RETURNING id), "
        f"ran AS (INSERT INTO {run} ({', '.join(RUN_FIELDS)}) "
        f"SELECT {_columns('run', RUN_FIELDS, 'job_id')} FROM picked AS o WHERE o.run_job_id IS NOT NULL "
        f"{into_run} RETURNING job_id), "
        f"buried AS (DELETE FROM {job} AS j USING ended AS o WHERE j.id = o.job_id::uuid "
        "AND (j.epoch, j.version) < (o.job_epoch, o.job_version))"
    )


def _columns(prefix: str, fields: Sequence[str], key: str) -> str:
    """Agents keep ids as text."""
    return ", ".join(f"o.{prefix}_{name}::uuid" if name == key else f"o.{prefix}_{name}" for name in fields)
