"""What agents report: outbox records, copies and the quarantine, in memory."""

from collections.abc import Sequence

from msgspec.structs import replace

from jobmaster.contracts.entries import ApplyAnswer, MoveReport, QuarantineEntry
from jobmaster.contracts.values import OutboxRecord
from jobmaster.master.memory.tables import MemoryPart, Tables
from jobmaster.master.rules import RecordError, check_record, newer, raw_record, spoken_of, take_in
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.telemetry.probes import probe


class MemoryIntake(MemoryPart):
    async def apply(self, agent: str, records: Sequence[OutboxRecord], after: int | None = None) -> list[ApplyAnswer]:
        with self._rows() as rows:
            if after is not None and records:
                if rows.cursors.get(agent, 0) != after:
                    return []
                rows.cursors[agent] = records[-1].seq
            answers: list[ApplyAnswer] = []
            good = []
            for record in records:
                try:
                    check_record(record)
                except RecordError as error:
                    self._quarantine(rows, agent, record, error)
                    answers.append(ApplyAnswer.QUARANTINED)
                else:
                    good.append(record)
                    answers.append(ApplyAnswer.OLD)
            applied = iter(_apply(rows, good))
            return [answer if answer is ApplyAnswer.QUARANTINED else next(applied) for answer in answers]

    async def cursor(self, agent: str) -> int:
        with self._rows() as rows:
            return rows.cursors.get(agent, 0)

    async def move(self, agent: str, outbox: str, limit: int) -> MoveReport:
        raise Refused(
            f"the memory master shares no database with agent {agent!r}: there is no table {outbox!r} to move"
        )

    async def copy(self, agent: str, jobs: Sequence[Job]) -> int:
        with self._rows() as rows:
            written = 0
            for job in jobs:
                if newer(job, rows.known(job.id)):
                    rows.write(job if job.agent is not None else replace(job, agent=agent))
                    written += 1
            return written

    async def sweep(self, limit: int) -> int:
        # One row per job is all this store can hold: there is nothing to sweep.
        with self._rows():
            return 0

    async def quarantined(self, limit: int) -> list[QuarantineEntry]:
        with self._rows() as rows:
            return rows.quarantine[::-1][: max(limit, 0)]

    def _quarantine(self, rows: Tables, agent: str, record: OutboxRecord, error: RecordError) -> None:
        entry = QuarantineEntry(
            agent=agent, seq=record.seq, at_us=self._clock.wall_us(), error=str(error), raw=raw_record(record)
        )
        rows.quarantine = [known for known in rows.quarantine if (known.agent, known.seq) != (agent, record.seq)]
        rows.quarantine.append(entry)
        probe("quarantined")


def _apply(rows: Tables, records: Sequence[OutboxRecord]) -> list[ApplyAnswer]:
    ids = spoken_of(records)
    known = {job_id: job for job_id in ids if (job := rows.known(job_id)) is not None}
    runs = {(job_id, token) for job_id in ids for token in rows.runs.get(job_id, ())}
    intake = take_in(records, known, runs)
    for job in intake.jobs:
        rows.write(job)
    for run in intake.runs:
        rows.runs.setdefault(run.job_id, {})[run.token] = run
    return intake.answers
