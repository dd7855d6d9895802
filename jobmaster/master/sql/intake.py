"""What agents report, in SQL: outbox records, copies, and the quarantine for what can't be applied."""

from collections.abc import Sequence

from msgspec.structs import astuple, replace
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from jobmaster.contracts.entries import ApplyAnswer, Placement, QuarantineEntry
from jobmaster.contracts.values import OutboxRecord
from jobmaster.master.rules import ON_AGENTS, Stamp, newer, raw_record, spoken_of, take_in
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.dialects import among, blames_value
from jobmaster.master.sql.ends_postgres import Ends, are_ends
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.rows import chunks
from jobmaster.master.sql.tables import Tables
from jobmaster.model.job import RUN_FIELDS, Job
from jobmaster.model.states import TERMINAL
from jobmaster.telemetry.probes import probe

_CURSOR = "cursor:"
"""With an agent's name behind it: where `meta` keeps how far its outbox was taken in."""


class SqlIntake(SqlPart):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._insert_runs = BulkInsert(tables.run, RUN_FIELDS, key=("job_id", "token"))
        self._insert_quarantine = BulkInsert(
            tables.quarantine, ("agent", "seq", "at_us", "error", "raw"), key=("agent", "seq"), replacing=True
        )
        self._ends: Ends | None = None
        self._insert_cursor = BulkInsert(tables.meta, ("name", "value"), key=("name",))

    async def apply(self, agent: str, records: Sequence[OutboxRecord], after: int | None = None) -> list[ApplyAnswer]:
        if not records:
            return []

        def apply(connection: Connection) -> tuple[list[ApplyAnswer], int]:
            if after is not None and not self._advance(connection, agent, after, records[-1].seq):
                return [], 0
            return self._apply(connection, agent, records)

        answers, bad = await self._write(apply)
        if bad:
            probe("quarantined", bad)
        await self._bury([record.job for record in records if record.job is not None])
        return answers

    async def cursor(self, agent: str) -> int:
        meta = self._tables.meta.c
        query = select(meta.value).where(meta.name == _CURSOR + agent)
        value = await self._read(lambda connection: connection.execute(query).scalar(), at_once=True)
        return int(value or 0)

    async def copy(self, agent: str, jobs: Sequence[Job]) -> int:
        if not jobs:
            return 0
        written = await self._write(lambda connection: self._copy(connection, agent, jobs))
        await self._bury(jobs)
        return written

    async def sweep(self, limit: int) -> int:
        query = self._rows.buried(sorted(ON_AGENTS), max(limit, 0))
        ids = await self._read(lambda connection: [row.id for row in connection.execute(query)], at_once=True)
        return await self._write(lambda connection: self._rows.bury(connection, ids)) if ids else 0

    async def quarantined(self, limit: int) -> list[QuarantineEntry]:
        table = self._tables.quarantine
        query = select(table).order_by(table.c.at_us.desc(), table.c.seq.desc()).limit(max(limit, 0))
        return await self._read(
            lambda connection: [
                QuarantineEntry(row.agent, row.seq, row.at_us, row.error, row.raw) for row in connection.execute(query)
            ],
            at_once=True,
        )

    def _advance(self, connection: Connection, agent: str, after: int, to: int) -> bool:
        """Compare and set the cursor, whose row stays locked until the commit; whether it was where it should be."""
        meta, key = self._tables.meta.c, _CURSOR + agent
        if not after:
            self._insert_cursor.run(connection, [(key, "0")])
        query = select(meta.value).where(meta.name == key).with_for_update()
        if connection.execute(query).scalar() != str(after):
            return False
        connection.execute(update(self._tables.meta).where(meta.name == key).values(value=str(to)))
        return True

    def _apply(
        self, connection: Connection, agent: str, records: Sequence[OutboxRecord]
    ) -> tuple[list[ApplyAnswer], int]:
        """The answers, and how many records went into the quarantine."""
        try:
            with connection.begin_nested():
                if connection.dialect.name == "postgresql" and are_ends(records):
                    return self._ends_of(connection).write(connection, records), 0
                return self._take_in(connection, records), 0
        except Exception as error:
            if not blames_value(error):
                raise
            if len(records) == 1:
                self._quarantine(connection, agent, records[0].seq, error, raw_record(records[0]))
                return [ApplyAnswer.QUARANTINED], 1
        middle = len(records) // 2
        first, bad_first = self._apply(connection, agent, records[:middle])
        second, bad_second = self._apply(connection, agent, records[middle:])
        return first + second, bad_first + bad_second

    def _ends_of(self, connection: Connection) -> Ends:
        if self._ends is None:
            self._ends = Ends(self._tables, connection.dialect)
        return self._ends

    def _take_in(self, connection: Connection, records: Sequence[OutboxRecord]) -> list[ApplyAnswer]:
        if any(record.job is None and record.revoked is None for record in records):
            raise ValueError("the record can't be read: it has neither a job nor a revocation")
        ids = sorted(spoken_of(records))
        revoked = sorted({record.revoked.id for record in records if record.revoked is not None})
        known: dict[str, Job | Stamp] = {**self._rows.stamps(connection, ids)}
        if revoked:
            known |= self._rows.known(connection, revoked, lock=True)
        run = self._tables.run.c
        runs: set[tuple[str, int]] = set()
        for chunk in chunks(ids):
            found = connection.execute(select(run.job_id, run.token).where(among(connection, run.job_id, chunk)))
            runs.update((row.job_id, row.token) for row in found)
        intake = take_in(records, known, runs)
        self._rows.write(connection, [Placement(job) for job in intake.jobs])
        self._insert_runs.run(connection, [astuple(entry) for entry in intake.runs])
        return intake.answers

    def _copy(self, connection: Connection, agent: str, jobs: Sequence[Job]) -> int:
        # Every process copies, so mostly there is nothing new; what others are about to write is not waited for then.
        seen = self._rows.stamps(connection, [job.id for job in jobs], lock=False)
        jobs = [job for job in jobs if newer(job, seen.get(job.id))]
        known: dict[str, Job | Stamp] = {**self._rows.stamps(connection, [job.id for job in jobs])}
        fresh: dict[str, Placement] = {}
        for job in jobs:
            if newer(job, known.get(job.id)):
                known[job.id] = job
                fresh[job.id] = Placement(job if job.agent is not None else replace(job, agent=agent))
        self._rows.write(connection, [*fresh.values()])
        return len(fresh)

    async def _bury(self, jobs: Sequence[Job]) -> None:
        """The second transaction after copies: what another session ended while the first ran is not live."""
        copies = [job.id for job in jobs if job.state not in TERMINAL]
        if copies and not self._engine.serial:
            await self._write(lambda connection: self._rows.bury(connection, copies))

    def _quarantine(self, connection: Connection, agent: str, seq: int, error: Exception, raw: bytes) -> None:
        words = str(error.orig) if isinstance(error, DBAPIError) else str(error)
        entry = (agent, seq, self._engine.now_us(connection), f"{type(error).__name__}: {words}"[:2000], raw)
        self._insert_quarantine.run(connection, [entry])
