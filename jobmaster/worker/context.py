"""`JobContext`: what a handler gets to see of its job, and how it speaks back."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic

from typing_extensions import TypeVar

from jobmaster.model.errors import OptionInvalid
from jobmaster.model.policy import Labels, decode_labels
from jobmaster.model.priority import Priority
from jobmaster.worker.joblog import JobLog
from jobmaster.worker.lease import Completer, Lease

Data = TypeVar("Data", default=Mapping[str, Any])

LONGEST_NOTE = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class JobContext(Generic[Data]):
    """One run of one job. Its attributes do not change during the run, except `lease_valid` and `cancelled`."""

    __slots__ = ("_completer", "_labels", "_lease", "data")

    data: Data
    """The job's data, decoded and validated as the handler's type."""

    def __init__(self, lease: Lease, data: Data, completer: Completer) -> None:
        self._lease = lease
        self._completer = completer
        self._labels: Labels | None = None
        self.data = data

    @property
    def id(self) -> str:
        return self._lease.id

    @property
    def handler(self) -> str:
        """The stored name of the handler."""
        return self._lease.job.handler

    @property
    def attempt(self) -> int:
        """From 1. Snoozed, interrupted and crashed runs do not count."""
        return self._lease.job.attempts + 1

    @property
    def token(self) -> int:
        """The fencing number of this run: higher than that of any earlier run of this job. Pass it to systems that
        can refuse a lower one."""
        return self._lease.token

    @property
    def lane(self) -> str:
        return self._lease.job.lane

    @property
    def priority(self) -> Priority:
        return Priority(self._lease.job.priority)

    @property
    def title(self) -> str | None:
        return self._read_labels().title

    @property
    def tags(self) -> tuple[str, ...]:
        return self._read_labels().tags

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._read_labels().metadata

    @property
    def created_at(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self._lease.job.created_us)

    @property
    def due_at(self) -> datetime:
        """When this attempt was due."""
        return _EPOCH + timedelta(microseconds=self._lease.job.due_us)

    @property
    def idempotency_key(self) -> str:
        """The same for every run of this job: hand it to systems that can ignore a repetition."""
        return self._lease.id

    @property
    def lease_valid(self) -> bool:
        """Whether this run still holds the exclusive right to the job, as far as this process can know. Where it does
        not, stop: nothing more will be accepted from this run."""
        return self._lease.valid

    @property
    def cancelled(self) -> bool:
        """Whether this run has been told to end: by a cancel, its timeout, a lost lease or a stopping worker.
        Handlers in threads, which cannot be cancelled, ask this now and then."""
        return self._lease.ending is not None

    @property
    def log(self) -> JobLog:
        """`job.log.info("sent", to=address)`: to the process's log, and the last lines into the run's record."""
        lease = self._lease
        if lease.log is None:
            lease.log = JobLog(lease.job, lease.holder.worker_id)
        return lease.log

    def progress(self, percent: float, note: str = "") -> None:
        """Report how far the run is: 0 to 100, with at most 200 characters. Only the latest report is kept; it is
        readable elsewhere within a second. Costs no statement. Raises `OptionInvalid`."""
        if isinstance(percent, bool) or not isinstance(percent, (int, float)) or not math.isfinite(percent):
            raise OptionInvalid("progress(percent)", percent, "a number from 0 to 100")
        if not 0 <= percent <= 100:
            raise OptionInvalid("progress(percent)", percent, "a number from 0 to 100")
        if not isinstance(note, str) or len(note) > LONGEST_NOTE or not _storable(note):
            raise OptionInvalid(
                "progress(note)", note, f"at most {LONGEST_NOTE} characters of text, without NUL or lone surrogates"
            )
        lease = self._lease
        lease.progress = (int(percent), note or None)
        lease.holder.progressed(lease)

    async def complete_in(self, connection: Any, result: Any = None) -> None:
        """Make the job's success part of the transaction that is open on this connection (of the kinds that
        `Scheduler.in_transaction` takes, to the database of the job's agent): what the handler wrote there and the end
        of the job are committed together, or not at all, and only while this run still holds the lease.

        The last thing to do before the commit. `result` stands in place of what the handler returns. After a rollback
        the run goes on as if this had not been called, but returns that result. Raises `LeaseLost` if the run has no
        right to the job any more: roll back then; `OptionInvalid` where connection or agent can't do this;
        `DataInvalid` for the result."""
        await self._completer.complete_in(self._lease, connection, result)

    def _read_labels(self) -> Labels:
        if self._labels is None:
            self._labels = decode_labels(self._lease.job.labels)
        return self._labels

    def __repr__(self) -> str:
        return f"JobContext(id={self.id!r}, handler={self.handler!r}, attempt={self.attempt})"


def lease_of(context: JobContext[Any]) -> Lease:
    """What the worker's own parts know a context by."""
    return context._lease  # noqa: SLF001 - handlers have no use for it


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in text
