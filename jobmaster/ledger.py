"""Ledger: what one transaction of an agent on a database server does to jobs one by one, collected; the agent writes it
in a few statements of its own.

For everything but the paths that work on thousands a second (`putting`, `claiming`, `settling`): there, SQL says the
same as the decisions do here. The rows must have been locked, in order of id.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from jobmaster.contracts import decisions
from jobmaster.contracts.values import RecordKind, Revocation, Revoke, RevokeKind
from jobmaster.model.job import JOB_FIELDS, RUN_FIELDS, Job, Run
from jobmaster.model.states import JobState

READY, DELAYED, LEASED = 0, 1, 2
"""Where a job stands, as the tables say it."""


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=_HasId)


def distinct(items: Iterable[tuple[int, Item]]) -> Iterator[list[tuple[int, Item]]]:
    """Numbered items in runs in which no id comes twice: a ledger writes a job once."""
    run: dict[str, tuple[int, Item]] = {}
    for at, item in items:
        if item.id in run:
            yield list(run.values())
            run = {}
        run[item.id] = (at, item)
    if run:
        yield list(run.values())


class Standing(Protocol):
    """A job with what only its store knows of it."""

    job: Job
    st: int
    seq: int
    last_token: int
    last_digest: int
    stood: tuple[str, int]
    """Where it was counted when it was read."""


RowT = TypeVar("RowT", bound=Standing)


class Ledger(ABC, Generic[RowT]):
    """Write through these, then `flush`, inside one transaction."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us
        self.ready: set[str] = set()
        """Lanes with jobs that became ready."""
        self.gone: list[str] = []
        """Jobs that are here no more."""
        self._records: list[Sequence[Any]] = []
        self._stones: list[Sequence[Any] | None] = []
        """One for each record, or None."""
        self._forgotten: list[Sequence[Any]] = []
        """Tombstones without a record."""
        self._changed: list[RowT] = []
        self._moved: Counter[tuple[str, int]] = Counter()
        self._unplaced: list[RowT] = []

    @abstractmethod
    async def flush(self) -> None:
        """Write it all."""

    def end_lease(self, row: RowT, job: Job, run: Run | None, digest: int) -> None:
        """A lease ended and left the job terminal, delayed, or ready again. One that is due no later than before keeps
        its place in line."""
        token = row.job.token
        if job.terminal:
            self.end(row, job, run, token, digest)
            return
        row.last_token, row.last_digest = token, digest
        if job.due_us == row.job.due_us:
            self.change(row, job, READY)
        else:
            self.shelve(row, job)
        if run is not None:
            self._record(decisions.record_kind(job), job, run)

    def shelve(self, row: RowT, job: Job) -> None:
        """A waiting job stands where its due time says: delayed, or ready in a new place in line."""
        if decisions.is_due(job, self.now_us):
            self._unplaced.append(row)
            self.change(row, job, READY)
        else:
            self.change(row, job, DELAYED)

    def change(self, row: RowT, job: Job, st: int) -> None:
        """The row holds that job and stands there, in its old place in line."""
        row.job, row.st = job, st
        self._changed.append(row)
        self._moved[row.stood] -= 1
        self._moved[job.lane, st] += 1
        if st == READY:
            self.ready.add(job.lane)

    def end(self, row: RowT, job: Job, run: Run | None, token: int, digest: int) -> None:
        """A job reached its end here: removed, with tombstone and record."""
        self._record(decisions.record_kind(job), job, run, stone=(job.id, job.epoch, token, digest, False, None, None))
        self._remove(row)

    def expire(self, row: RowT) -> None:
        """A waiting job ends `failed(expired)`."""
        self.end(row, decisions.expired(row.job, self.now_us), None, row.last_token, row.last_digest)

    def take_back(self, row: RowT, job: Job, run: Run | None, kind: RevokeKind, answer: Revocation) -> None:
        """A job is revoked: removed, with a tombstone that knows the answer, and an `effect` record."""
        token, digest = (row.last_token, row.last_digest) if run is None else (run.token, decisions.CANCELLED_DIGEST)
        moved = job.state is JobState.HELD
        self._record(RecordKind.EFFECT, job, run, stone=_stone(job.id, job.epoch, token, digest, moved, kind, answer))
        self._remove(row)

    def bar(
        self, item: Revoke, row: RowT | None, run: Run | None, answer: Revocation, last: tuple[int, int] = (0, 0)
    ) -> None:
        """An epoch that never came can't come any more. `row` is what was here of an earlier one, and goes; `last` the
        token and digest of what ended before."""
        token, digest = last
        if row is not None:
            token, digest = row.last_token, row.last_digest
            self._remove(row)
        if run is not None:
            token, digest = run.token, decisions.CANCELLED_DIGEST
        stone = _stone(item.id, item.epoch, token, digest, False, item.kind, answer)
        self._record(RecordKind.EFFECT, None, run, item, stone)

    def forget(self, row: RowT) -> None:
        """A row goes of which the master knows more than is here: a tombstone, and no record."""
        job = row.job
        self._forgotten.append((job.id, job.epoch, row.last_token, row.last_digest, False, None, None))
        self._remove(row)

    def _remove(self, row: RowT) -> None:
        self.gone.append(row.job.id)
        self._moved[row.stood] -= 1

    def _record(
        self,
        kind: RecordKind,
        job: Job | None,
        run: Run | None,
        revoked: Revoke | None = None,
        stone: Sequence[Any] | None = None,
    ) -> None:
        self._records.append(
            (
                kind,
                None if revoked is None else msgspec.json.encode(revoked).decode(),
                *((None,) * len(JOB_FIELDS) if job is None else (getattr(job, name) for name in JOB_FIELDS)),
                *((None,) * len(RUN_FIELDS) if run is None else (getattr(run, name) for name in RUN_FIELDS)),
            )
        )
        self._stones.append(stone)


def _stone(
    job_id: str, epoch: int, token: int, digest: int, moved: bool, revoked: RevokeKind, answer: Revocation
) -> Sequence[Any]:
    return (job_id, epoch, token, digest, moved, revoked, msgspec.json.encode(answer).decode())
