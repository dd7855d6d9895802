"""Reading by subject and sequence: what stands last, what stands where. Changes nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Struct

from jobmaster.contracts import decisions
from jobmaster.model.job import Job
from jobmaster_agents.nats import api, streams
from jobmaster_agents.nats.connection import Answers, Link, Request
from jobmaster_agents.nats.messages import Message
from jobmaster_agents.nats.records import (
    Confirmed,
    Hold,
    Parcel,
    Record,
    StoreSettings,
    decode_confirmed,
    decode_hold,
    decode_parcel,
    decode_record,
    decode_settings,
)
from jobmaster_agents.nats.subjects import Subjects

MOST_SUBJECTS = 1_000
"""Asked about in one request; the server answers 1,024."""

_encode = msgspec.json.Encoder().encode


class _Message(Struct, frozen=True):
    seq: int
    data: bytes = b""


class _Said(Struct, frozen=True):
    """What the leader answers; bytes are base64 there."""

    message: _Message | None = None
    error: dict[str, Any] | None = None


_decode_said = msgspec.json.Decoder(_Said).decode


class Stored:
    """A message as it stands in its stream."""

    __slots__ = ("_message", "data", "seq", "subject")

    def __init__(self, message: Message) -> None:
        self._message = message
        self.subject = message.field(b"Nats-Subject")
        self.seq = int(message.field(b"Nats-Sequence"))
        self.data = message.data

    @property
    def at_us(self) -> int:
        """When it was stored, in store time."""
        return api.instant_us(self._message.field(b"Nats-Time-Stamp"))

    @property
    def headers(self) -> dict[str, str]:
        return self._message.headers


class Sent(Struct, frozen=True, gc=False):
    """A parcel where it stands."""

    stored: Stored
    parcel: Parcel

    @property
    def subject(self) -> str:
        return self.stored.subject

    @property
    def seq(self) -> int:
        return self.stored.seq

    @property
    def at_us(self) -> int:
        return self.stored.at_us


class Last(Struct, frozen=True, gc=False):
    """The last record of a job and its sequence; 0: there is none."""

    seq: int = 0
    record: Record | None = None


NONE = Last()


class Standing(Struct, frozen=True, gc=False):
    """A job as it stands: the last record, and the parcel that stands for it."""

    last: Last
    sent: Sent | None

    @property
    def job(self) -> Job | None:
        """None: it is not here."""
        record = self.last.record
        if self.sent is None:
            # The parcel of a retry that is not published yet: the record speaks for itself.
            return None if record is None or record.gone else record.job
        parcel = self.sent.parcel
        if record is None or record.epoch < parcel.job.epoch:
            return parcel.job
        return None if record.gone else job_of(record, parcel)

    @property
    def spent(self) -> bool:
        """Whether its parcel is one too many: the job has left, and only whoever fetched it would take it away."""
        record = self.last.record
        if self.sent is None or record is None:
            return False
        return record.gone and record.epoch >= self.sent.parcel.job.epoch


def job_of(record: Record, parcel: Parcel) -> Job:
    """The job that a record of the parcel's epoch speaks of."""
    if record.job is not None:
        return record.job
    return running(parcel.job, record.worker or "", record.claim_seq)


def running(job: Job, worker: str, claim_seq: int) -> Job:
    """As `decisions.claimed` left it."""
    claimed = decisions.claimed(job, worker)
    assert claimed.claim_seq == claim_seq, (job.id, claimed.claim_seq, claim_seq)
    return claimed


class Reader:
    """Reads of one agent's streams over one link."""

    def __init__(self, link: Link, subjects: Subjects) -> None:
        self.link = link
        self.subjects = subjects

    async def now_us(self) -> int:
        """Store time, from the server that answers for the outcomes."""
        answer = await api.call(self.link, f"STREAM.INFO.{self.subjects.out_stream}")
        return api.instant_us(answer["ts"])

    async def state(self) -> dict[str, Any]:
        """Counts and sequences of the outcome stream."""
        answer = await api.call(self.link, f"STREAM.INFO.{self.subjects.out_stream}")
        found: dict[str, Any] = answer["state"]
        return found

    async def settings(self) -> tuple[StoreSettings | None, int]:
        """With the sequence to compare-and-set on; None: the store has no name yet."""
        found = await self._last(self.subjects.ctl_stream, self.subjects.state)
        return (decode_settings(found.data), found.seq) if found else (None, 0)

    @asynccontextmanager
    async def reading_settings(self) -> AsyncIterator[Callable[[], Awaitable[StoreSettings | None]]]:
        """As `settings`, read while something else is: asked for at once, and waited for when that is called."""
        request = self._ask_last(self.subjects.ctl_stream, self.subjects.state)

        async def settings() -> StoreSettings | None:
            [message] = await answers()
            if message is None:
                raise self.link.unreachable("the settings could not be read")
            return decode_settings(message.data) if message.status is None else None

        async with self.link.asking([request]) as answers:
            yield settings

    async def confirmed(self) -> tuple[Confirmed, int]:
        found = await self._last(self.subjects.ctl_stream, self.subjects.confirmed)
        return (decode_confirmed(found.data), found.seq) if found else (Confirmed(), 0)

    async def confirmed_and_nonce(self, seq: int) -> tuple[Confirmed, int | None]:
        """What is confirmed and, of the record at that sequence, the nonce; None: there is no such record."""
        requests = [
            self._ask_last(self.subjects.ctl_stream, self.subjects.confirmed),
            self._get(self.subjects.out_stream, seq=seq),
        ]
        [confirmed, record] = await self.link.ask_all(requests)
        if confirmed is None or record is None:
            raise self.link.unreachable("the confirmation could not be read")
        return (
            decode_confirmed(confirmed.data) if confirmed.status is None else Confirmed(),
            _nonce(record.data) if record.status is None else None,
        )

    async def lasts(self, ids: Sequence[str]) -> dict[str, Last]:
        """The last records of these jobs that have one."""
        found: dict[str, Last] = {}
        async for stored in self._latest(self.subjects.out_stream, ids, self.subjects.out, MOST_SUBJECTS):
            found[stored.subject.rpartition(".")[2]] = Last(stored.seq, decode_record(stored.data))
        return found

    async def lasts_at_leader(self, ids: Sequence[str]) -> dict[str, Last]:
        """As `lasts`, but of one who can't be behind: any of several servers may answer the other way, and one that has
        not heard of a write yet would let it seem lost."""
        stream = self.subjects.out_stream
        requests = [
            (f"$JS.API.STREAM.MSG.GET.{stream}", b"", _encode({"last_by_subj": self.subjects.out(job_id)}))
            for job_id in ids
        ]
        found: dict[str, Last] = {}
        for job_id, answer in zip(ids, await self.link.ask_all(requests), strict=True):
            if answer is None:
                raise self.link.unreachable("the leader of the outcomes gave no answer")
            said = _decode_said(answer.data)
            if said.message is not None:
                found[job_id] = Last(said.message.seq, decode_record(said.message.data))
            elif said.error is None or said.error.get("code") != api.NOT_FOUND:
                raise self.link.unreachable(f"a record could not be read: {said.error}")
        return found

    async def sents(self, ids: Sequence[str]) -> dict[str, list[Sent]]:
        """The parcels of these jobs, by counter; two while one replaces the other."""
        found: dict[str, list[Sent]] = {}
        stream, most = self.subjects.jobs_stream, MOST_SUBJECTS // 2
        async for stored in self._latest(stream, ids, self.subjects.anywhere, most):
            sent = _sent(stored)
            if sent is not None:
                found.setdefault(self.subjects.job_id(sent.subject), []).append(sent)
        for several in found.values():
            if len(several) > 1:
                several.sort(key=lambda sent: (sent.parcel.job.epoch, sent.parcel.counter, -sent.seq))
        return found

    async def _latest(
        self, stream: str, ids: Sequence[str], subject: Callable[[str], str], most: int
    ) -> AsyncIterator[Stored]:
        """The last messages on the subjects of these jobs, in as many goes as their size asks for."""
        left = [(part, 0) for part in _parts(ids, most)]
        while left:
            requests = [
                self._get(
                    stream,
                    multi_last=[subject(job_id) for job_id in part],
                    max_bytes=streams.BURST_BYTES,
                    **({"seq": start} if start else {}),
                )
                for part, start in left
            ]
            again = []
            for (part, _), answers in zip(left, await self.link.ask_all_series(requests), strict=True):
                self._check(answers)
                came = [Stored(message) for message in answers.messages]
                for stored in came:
                    yield stored
                if answers.pending and came:
                    again.append((part, came[-1].seq + 1))
            left = again

    async def standings(self, ids: Sequence[str]) -> dict[str, Standing]:
        """How these jobs stand, of those of which anything is known here."""
        # Parcels first: a record that says more than its parcel is an ordinary sight, the reverse never is.
        sents = await self.sents(ids)
        lasts = await self.lasts(ids)
        return {
            job_id: Standing(lasts.get(job_id, NONE), sents[job_id][-1] if job_id in sents else None)
            for job_id in ids
            if job_id in sents or job_id in lasts
        }

    async def holds(self) -> list[tuple[Stored, Hold]]:
        """All of them, oldest first."""
        found = await self.every(self.subjects.ctl_stream, self.subjects.holds)
        return [(stored, decode_hold(stored.data)) for stored in found]

    async def parcels(self, subject: str, start: int = 1, batch: int = 500) -> list[Sent]:
        """One page of parcels on matching subjects, from that sequence on."""
        page, _ = await self.page(self.subjects.jobs_stream, subject, start, batch)
        return [sent for stored in page if (sent := _sent(stored)) is not None]

    async def page(self, stream: str, subject: str, start: int, batch: int) -> tuple[list[Stored], bool]:
        """Up to `batch` messages on matching subjects, from that sequence on, and whether there are more."""
        most = streams.BURST_BYTES
        request = self._direct(stream, next_by_subj=subject, seq=start, batch=batch, max_bytes=most)
        answers = await self.link.ask_series(*request)
        self._check(answers)
        return [Stored(message) for message in answers.messages], answers.pending > 0

    async def pages(self, stream: str, subject: str, start: int = 1, batch: int = 1_000) -> AsyncIterator[list[Stored]]:
        """All of them, page by page."""
        more = True
        while more:
            page, more = await self.page(stream, subject, start, batch)
            if not page:
                return
            yield page
            start = page[-1].seq + 1

    async def every(self, stream: str, subject: str, start: int = 1) -> list[Stored]:
        """All messages on matching subjects, from that sequence on, oldest first."""
        return [stored async for page in self.pages(stream, subject, start) for stored in page]

    async def consumers(self) -> list[dict[str, Any]]:
        """What the server says of each consumer of the stream of jobs."""
        found: list[dict[str, Any]] = []
        while True:
            body = {"offset": len(found)}
            answer = await api.call(self.link, f"CONSUMER.LIST.{self.subjects.jobs_stream}", body)
            page = answer.get("consumers") or []
            found += page
            if not page or len(found) >= answer["total"]:
                return found

    async def _last(self, stream: str, subject: str) -> Stored | None:
        [message] = await self.link.ask_all([self._ask_last(stream, subject)])
        if message is None:
            raise self.link.unreachable(f"no answer to a reading of {subject}")
        if message.status is not None:
            return None
        return Stored(message)

    def _ask_last(self, stream: str, subject: str) -> Request:
        return f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", b""

    def _direct(self, stream: str, **body: Any) -> tuple[str, bytes]:
        return f"$JS.API.DIRECT.GET.{stream}", _encode(body)

    def _get(self, stream: str, **body: Any) -> tuple[str, bytes, bytes]:
        subject, payload = self._direct(stream, **body)
        return subject, b"", payload

    def _check(self, answers: Answers) -> None:
        """`AgentUnreachable` for a reading that broke off: what is missing must not be taken for what is not there."""
        if answers.status not in ("204", "404"):
            raise self.link.unreachable(f"a reading broke off ({answers.status or 'no end in time'})")


def _nonce(data: bytes) -> int:
    """0, which no record has, of one that can't be read."""
    try:
        return decode_record(data).nonce
    except msgspec.DecodeError:
        return 0


def _sent(stored: Stored) -> Sent | None:
    try:
        return Sent(stored, decode_parcel(stored.data))
    except msgspec.DecodeError:
        return None


def _parts(ids: Iterable[str], size: int = MOST_SUBJECTS) -> Iterator[list[str]]:
    every = list(dict.fromkeys(ids))
    for start in range(0, len(every), size):
        yield every[start : start + size]
