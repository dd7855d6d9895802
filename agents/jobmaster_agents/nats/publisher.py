"""Publishing: every write is a compare-and-set, and an answer that did not come is found out by reading."""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from jobmaster.model.errors import Indeterminate, Refused, StoreError
from jobmaster_agents.nats.api import WRONG_LAST_SEQUENCE, instant_text
from jobmaster_agents.nats.connection import Request
from jobmaster_agents.nats.frames import header_block
from jobmaster_agents.nats.messages import Message
from jobmaster_agents.nats.reader import NONE, Reader
from jobmaster_agents.nats.recall import Recall
from jobmaster_agents.nats.records import Parcel, Record, encode, new_nonce
from jobmaster_agents.nats.streams import MESSAGE_BYTES
from jobmaster_agents.nats.subjects import Subjects

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_ON = "Nats-Expected-Last-Subject-Sequence-Subject"
DEADLINE = "Jm-Put-Deadline"
ATTEMPTS = 3


class Failure(Struct, frozen=True):
    """Why a publish was not taken."""

    err_code: int = 0
    description: str = ""
    code: int = 0


class PubAck(Struct, frozen=True):
    """What a stream answers."""

    seq: int = 0
    error: Failure | None = None

    @property
    def conflict(self) -> bool:
        """Somebody wrote there first; other in-flight conflicts of a replicated stream mean the same."""
        return self.error is not None and (self.error.err_code == WRONG_LAST_SEQUENCE or self.error.err_code == 10164)


_acks = msgspec.json.Decoder(PubAck).decode


def read_ack(message: Message | None) -> PubAck | None:
    """None: no answer."""
    if message is None or not message.data:
        return None
    return _acks(message.data)


BATCH = 500
"""Messages of one atomic batch; the server takes 1,000."""
WORTH_A_BATCH = 8


class Write(Struct, frozen=True, gc=False):
    """A record to be written where the last sequence is the expected one."""

    id: str
    record: Record
    expected: int


class Publisher:
    """Writes of one agent over one link."""

    def __init__(self, reader: Reader, recall: Recall, *, replicated: bool) -> None:
        """`replicated`: several servers keep the records, and one of them may be behind."""
        self._reader = reader
        self._recall = recall
        self._link = reader.link
        self._subjects = reader.subjects
        self._replicated = replicated
        self.grouped = False
        """Whether the server writes to its disk before it answers: then a batch that is written whole costs a tenth of
        its messages one by one. Where it does not, a batch costs more."""

    async def publish(self, requests: Sequence[Request]) -> list[PubAck | None]:
        """An answer each; None where none came. In atomic batches where that is quicker: one whose answer is not yes
        says nothing of its messages, so these are sent again one by one."""
        if not self.grouped or len(requests) < WORTH_A_BATCH:
            return list(map(read_ack, await self._link.ask_all(requests)))
        parts = [requests[start : start + BATCH] for start in range(0, len(requests), BATCH)]
        found: list[PubAck | None] = []
        answers = await self._link.ask_grouped([_atomic(part) for part in parts])
        for part, ack in zip(parts, map(read_ack, answers), strict=True):
            if ack is not None and ack.error is None:
                first = ack.seq - len(part) + 1
                found += [PubAck(first + number) for number in range(len(part))]
            elif ack is None:
                found += [None] * len(part)
            else:
                try:
                    found += map(read_ack, await self._link.ask_all(part))
                except Refused:
                    found += [None] * len(part)
        return found

    async def publish_as_made(self, size: int, requests: Iterator[Request]) -> list[PubAck | None]:
        """As `publish`, of so many messages; the first are on their way while the last are made."""
        if self.grouped:
            return await self.publish([*requests])
        return list(map(read_ack, await self._link.ask_as_made(size, requests)))

    async def commit(self, writes: Sequence[Write]) -> list[int]:
        """For each, the sequence it was accepted at; 0: somebody else wrote first and nothing was done. Raises
        `Refused` if nothing was written, `Indeterminate` if that can't be told."""
        found = [0] * len(writes)
        left = list(range(len(writes)))
        for attempt in range(ATTEMPTS):
            try:
                requests = [self._outcome(writes[number]) for number in left]
                answers = await self.publish(requests)
                doubtful = []
                refused: tuple[str, PubAck] | None = None
                for number, answer, request in zip(left, answers, requests, strict=True):
                    if answer is not None and answer.error is None:
                        found[number] = answer.seq
                        self._recall.note(answer.seq, writes[number].record, len(request[2]))
                    elif answer is not None and not answer.conflict:
                        refused = writes[number].id, answer
                    else:
                        # Also after a conflict: it may be with one's own first copy, whose answer was lost.
                        doubtful.append((number, answer is not None))
                if refused is not None:
                    unclear = attempt or len(doubtful) or any(found)
                    raise _refused(self._subjects, *refused, unclear=bool(unclear))
                left = await self._resolve(writes, found, doubtful)
            except Indeterminate:
                raise
            except Refused as error:
                if attempt == 0 and not any(found):
                    raise
                raise Indeterminate(str(error), agent=self._link.agent) from error
            if not left:
                return found
        raise Indeterminate("the server gave no answer to a write", agent=self._link.agent)

    async def _resolve(
        self, writes: Sequence[Write], found: list[int], doubtful: Sequence[tuple[int, bool]]
    ) -> list[int]:
        """Of those without a clear answer, the ones to be written again."""
        if not doubtful:
            return []
        try:
            ids = [writes[number].id for number, _ in doubtful]
            read = self._reader.lasts_at_leader if self._replicated else self._reader.lasts
            lasts = await read(ids)
        except StoreError as error:
            raise Indeterminate(str(error), agent=self._link.agent) from error
        again = []
        for number, answered in doubtful:
            write = writes[number]
            last = lasts.get(write.id, NONE)
            if last.record is not None and last.record.nonce == write.record.nonce:
                found[number] = last.seq
            elif last.seq == write.expected and not answered:
                again.append(number)
        return again

    def _outcome(self, write: Write) -> Request:
        headers = header_block((EXPECTED, str(write.expected)))
        payload = encode(write.record)
        if len(payload) + len(headers) > MESSAGE_BYTES:
            raise Refused(
                f"job {write.id}: its record has {len(payload):,} bytes, a message may have {MESSAGE_BYTES:,}; "
                "keep large data elsewhere and give the job its address"
            )
        return self._subjects.out(write.id), headers, payload

    def parcel(
        self, parcel: Parcel, not_before_us: int | None, *, deadline_us: int | None = None, anywhere: bool = False
    ) -> Request:
        """The publish of a job, ready or for its time. `anywhere`: only if it stands nowhere under any counter."""
        job = parcel.job
        target = self._subjects.job(job.lane, job.priority, job.id, parcel.counter)
        pairs = [(EXPECTED, "0")]
        if anywhere:
            pairs.append((EXPECTED_ON, self._subjects.anywhere(job.id)))
        if deadline_us is not None:
            pairs.append((DEADLINE, str(deadline_us)))
        subject = target
        if not_before_us is not None:
            subject = self._subjects.waiting(job.lane, job.priority, job.id, parcel.counter)
            pairs += [("Nats-Schedule", f"@at {instant_text(not_before_us)}"), ("Nats-Schedule-Target", target)]
        return subject, header_block(*pairs), encode(parcel)

    async def send_parcels(self, parcels: Sequence[tuple[Parcel, int | None]]) -> None:
        """Publish those that are not there yet: idempotent. What fails is mended by whoever meets the old parcel."""
        answers = await self._link.ask_all([self.parcel(parcel, at) for parcel, at in parcels])
        for (parcel, _), answer in zip(parcels, map(read_ack, answers), strict=True):
            if answer is not None and answer.error is not None and not answer.conflict:
                raise _refused(self._subjects, parcel.job.id, answer)


def _atomic(requests: Sequence[Request]) -> list[Request]:
    """The messages as one batch, stored whole or not at all."""
    batch = f"{new_nonce():x}"
    found = []
    for number, (subject, headers, payload) in enumerate(requests, 1):
        lines = f"Nats-Batch-Id: {batch}\r\nNats-Batch-Sequence: {number}\r\n"
        if number == len(requests):
            lines += "Nats-Batch-Commit: 1\r\n"
        found.append((subject, headers[:-2] + lines.encode() + b"\r\n", payload))
    return found


def _refused(subjects: Subjects, job_id: str, answer: PubAck, *, unclear: bool = False) -> StoreError:
    assert answer.error is not None
    text = f"{subjects.prefix}: the server did not take job {job_id}: {answer.error.description}"
    return Indeterminate(text, job_id) if unclear else Refused(text)
