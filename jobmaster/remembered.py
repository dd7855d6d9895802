"""Remembered: the outbox records of a batch of ends, as the process that settled them knows them without reading."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from jobmaster.contracts import decisions
from jobmaster.contracts.values import OutboxRecord, Settlement
from jobmaster.model.job import Job

MOST = 20_000
"""Records kept,"""
MOST_BYTES = 32 << 20
"""and bytes of their payloads: what comes beyond, as while the master is away, is read from the outbox later."""


class Remembered:
    """Kept from the first time that somebody asks for them: a process that brings nothing over keeps nothing."""

    def __init__(self) -> None:
        self._records: deque[OutboxRecord] = deque()
        self._bytes = 0
        self._wanted = False

    def add(self, items: Sequence[Settlement], found: Sequence[Any]) -> None:
        """These were settled, in order of id, and `found` is, in any order: id, seq, version and end of each that was.
        Left out are jobs that were not handed along, or are not what they were when claimed."""
        if not self._wanted or len(self._records) >= MOST or self._bytes >= MOST_BYTES:
            return
        by_id = {row[0]: row for row in found}
        for item in items:
            row, job = by_id.get(item.id), item.job
            if row is None or job is None or row[2] != job.version + 1:
                continue
            ended, run = decisions.settled(job, item, row[3])
            self._bytes += payload_bytes(ended)
            self._records.append(
                OutboxRecord(seq=row[1], kind=decisions.record_kind(ended), at_us=row[3], job=ended, run=run)
            )

    def take(self, limit: int) -> list[OutboxRecord]:
        """The oldest, which are forgotten here."""
        self._wanted = True
        taken = [self._records.popleft() for _ in range(min(limit, len(self._records)))]
        self._bytes -= sum(payload_bytes(record.job) for record in taken if record.job is not None)
        return taken


def payload_bytes(job: Job) -> int:
    """What a job brings along and what it gave: nearly all of a large record."""
    return len(job.data) + (0 if job.result is None else len(job.result))
