"""The outbox: facts for the master, in the order they happened, until confirmed."""

from collections.abc import Iterable

from jobmaster.contracts.values import OutboxRecord, RecordKind, Revoke
from jobmaster.model.job import Job, Run


class Outbox:
    """Appending belongs to the same critical section as the change it reports. Sequence numbers are never reused."""

    def __init__(self) -> None:
        self.high_water = 0
        self._records: dict[int, OutboxRecord] = {}
        self._of_job: dict[str, dict[int, None]] = {}

    def append(self, job_id: str, kind: RecordKind, at_us: int, job: Job | None, run: Run | None = None) -> None:
        self._keep(job_id, OutboxRecord(seq=self._next(), kind=kind, at_us=at_us, job=job, run=run))

    def append_unseen(self, revoke: Revoke, at_us: int, run: Run | None) -> None:
        """The revocation of an epoch that was never here; `run` if it cut a lower epoch's run short."""
        record = OutboxRecord(seq=self._next(), kind=RecordKind.EFFECT, at_us=at_us, job=None, run=run, revoked=revoke)
        self._keep(revoke.id, record)

    def changes(self, limit: int, until_us: int) -> list[OutboxRecord]:
        """The oldest records written until that instant."""
        found: list[OutboxRecord] = []
        for record in self._records.values():
            if len(found) == limit:
                break
            if record.at_us <= until_us:
                found.append(record)
        return found

    def confirm(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            record = self._records.pop(seq, None)
            if record is None:
                continue
            job_id = _job_id(record)
            mine = self._of_job[job_id]
            del mine[seq]
            if not mine:
                del self._of_job[job_id]

    def latest(self, job_id: str) -> Job | None:
        """The job as its last unconfirmed record that holds it says."""
        for seq in reversed(self._of_job.get(job_id, {})):
            if (job := self._records[seq].job) is not None:
                return job
        return None

    def concerns(self, job_id: str) -> bool:
        """Whether a record of this job is not confirmed yet."""
        return job_id in self._of_job

    def _next(self) -> int:
        self.high_water += 1
        return self.high_water

    def _keep(self, job_id: str, record: OutboxRecord) -> None:
        self._records[record.seq] = record
        self._of_job.setdefault(job_id, {})[record.seq] = None


def _job_id(record: OutboxRecord) -> str:
    if record.job is not None:
        return record.job.id
    assert record.revoked is not None
    return record.revoked.id
