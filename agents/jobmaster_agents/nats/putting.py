"""Putting: a job is published where no job of its id stands, and its outcome subject says whether it ended before."""

from collections.abc import Collection, Iterator, Sequence
from itertools import islice

from jobmaster.contracts import decisions
from jobmaster.contracts.values import PutAnswer, StoreMode
from jobmaster.model.errors import Indeterminate, Refused
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.telemetry.probes import probe
from jobmaster_agents.nats.connection import Request
from jobmaster_agents.nats.expiring import watch_expiry
from jobmaster_agents.nats.parcels import remove
from jobmaster_agents.nats.publisher import PubAck, Write, read_ack
from jobmaster_agents.nats.reader import NONE, Last, Sent
from jobmaster_agents.nats.records import Parcel, Record, new_nonce, payload_digest
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.streams import MESSAGE_BYTES

_CLOSED_TO_NEW = frozenset({StoreMode.DRAINING, StoreMode.QUARANTINED})
DEADLINE_MARGIN_US = 60_000_000
"""An answer this near to the deadline may have been given after it."""
NEARLY_US = 50_000
"""A job due that soon may be due by now: the clock is asked before it is sent the long way round."""
ROOM_BYTES = 65_536
"""More than names, numbers and headers take in a message."""
WINDOW = 2_000
"""Jobs published before their answers are waited for."""


class Putting:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        if not jobs:
            return []
        store = self._store
        batch: dict[str, Job] = {}
        for job in jobs:
            batch.setdefault(job.id, job)
        async with store.insisting() as insisted:
            lasts = await store.reader.lasts(list(batch))
            settings = await insisted()
        now_us = await self._now_us(batch.values())
        answers = {job_id: self._by_record(job, lasts.get(job_id, NONE)) for job_id, job in batch.items()}
        new = [job for job_id, job in batch.items() if answers[job_id] is None]
        late = now_us > put_deadline_us
        if new and (late or settings.mode in _CLOSED_TO_NEW):
            new = await self._told_without_writing(new, lasts, answers, late=late, mode=settings.mode)
        if new:
            await self._store_new(new, lasts, answers, put_deadline_us, now_us)
        return self._in_order(jobs, batch, answers)

    def _in_order(
        self, jobs: Sequence[Job], batch: dict[str, Job], answers: dict[str, PutAnswer | None]
    ) -> list[PutAnswer]:
        given = []
        seen: set[str] = set()
        for job in jobs:
            answer = answers[job.id]
            assert answer is not None
            if job.id in seen and answer is PutAnswer.STORED:
                first = batch[job.id]
                answer = _compared(first.epoch, payload_digest(first), job)
            seen.add(job.id)
            given.append(answer)
        duplicates = given.count(PutAnswer.DUPLICATE)
        if duplicates:
            probe("duplicate_put", duplicates)
        return given

    async def _now_us(self, jobs: Collection[Job]) -> int:
        store = self._store
        now_us = await store.now_us()
        if any(now_us < job.due_us < now_us + NEARLY_US for job in jobs):
            return await store.ask_now_us()
        return now_us

    def _by_record(self, job: Job, last: Last) -> PutAnswer | None:
        """None: the record says nothing against it."""
        record = last.record
        if record is None:
            return None
        if record.epoch < job.epoch:
            return PutAnswer.CONFLICT if record.leased else None
        if record.gone:
            return PutAnswer.TOMBSTONED
        return _compared(record.epoch, record.first, job)

    async def _told_without_writing(
        self,
        new: Sequence[Job],
        lasts: dict[str, Last],
        answers: dict[str, PutAnswer | None],
        *,
        late: bool,
        mode: StoreMode,
    ) -> list[Job]:
        """Only those that are here already get an answer; the others are late, or refused together."""
        sents = await self._store.reader.sents([job.id for job in new])
        unknown = []
        for job in new:
            sent = _current(sents.get(job.id, ()), lasts.get(job.id, NONE))
            if sent is not None and sent.parcel.job.epoch >= job.epoch:
                answers[job.id] = _compared(sent.parcel.job.epoch, sent.parcel.first, job)
            elif late:
                answers[job.id] = PutAnswer.STALE_PUT
            else:
                unknown.append(job)
        if unknown:
            raise Refused(
                f"agent {self._store.name!r} is {mode} and takes no new job: put job {unknown[0].id} elsewhere, "
                "or resume the agent"
            )
        return []

    async def _store_new(
        self,
        new: Sequence[Job],
        lasts: dict[str, Last],
        answers: dict[str, PutAnswer | None],
        put_deadline_us: int,
        now_us: int,
    ) -> None:
        store = self._store
        await store.consumers.ensure({job.lane for job in new})
        made = (self._request(job, put_deadline_us, now_us) for job in new)
        # What may be too large is refused before anything is sent.
        requests = made if all(map(_surely_fits, new)) else iter([*made])
        await watch_expiry(store, new)
        for start in range(0, len(new), WINDOW):
            jobs = new[start : start + WINDOW]
            try:
                acks = await self._published(len(jobs), islice(requests, len(jobs)))
            except Refused as error:
                if not start:
                    raise
                raise Indeterminate(str(error), agent=store.name) from error
            contested = []
            for job, ack in zip(jobs, acks, strict=True):
                if ack.error is None:
                    answers[job.id] = PutAnswer.STORED
                elif ack.conflict:
                    contested.append(job)
                else:
                    raise Indeterminate(ack.error.description, job.id, store.name)
            if contested:
                await self._contested(contested, lasts, answers, put_deadline_us, now_us)
        if await store.now_us() > put_deadline_us - DEADLINE_MARGIN_US:
            for job in new:
                if answers[job.id] is PutAnswer.STORED:
                    answers[job.id] = PutAnswer.STALE_PUT

    def _request(self, job: Job, put_deadline_us: int, now_us: int) -> Request:
        at_us = None if decisions.is_due(job, now_us) else job.due_us
        parcel = Parcel(decisions.placed(job, self._store.name), 0, payload_digest(job), at_us or 0)
        request = self._store.publisher.parcel(parcel, at_us, deadline_us=put_deadline_us, anywhere=True)
        if len(request[1]) + len(request[2]) > MESSAGE_BYTES:
            raise Refused(
                f"job {job.id} makes a message of {len(request[2]):,} bytes, and agent {self._store.name!r} takes up "
                f"to {MESSAGE_BYTES:,}: keep large data elsewhere and give the job its address"
            )
        return request

    async def _published(self, size: int, made: Iterator[Request]) -> list[PubAck]:
        """Acknowledgements of all of them. What stays without one is published once more, the same bytes: it is there
        already, or it is there then."""
        store = self._store
        requests: list[Request] = []

        def kept() -> Iterator[Request]:
            for request in made:
                requests.append(request)
                yield request

        acks = await store.publisher.publish_as_made(size, kept())
        lost = [number for number, ack in enumerate(acks) if ack is None]
        if lost:
            try:
                again = await store.link.ask_all([requests[number] for number in lost])
            except Refused as error:
                raise Indeterminate(str(error), agent=store.name) from error
            for number, message in zip(lost, again, strict=True):
                acks[number] = read_ack(message)
        found = [ack for ack in acks if ack is not None]
        if len(found) < len(acks):
            raise Indeterminate("the server gave no answer to a put", agent=store.name)
        return found

    async def _contested(
        self,
        jobs: Sequence[Job],
        lasts: dict[str, Last],
        answers: dict[str, PutAnswer | None],
        put_deadline_us: int,
        now_us: int,
    ) -> None:
        """A parcel of that id stands somewhere."""
        sents = await self._store.reader.sents([job.id for job in jobs])
        for job in jobs:
            several = sents.get(job.id, [])
            last = lasts.get(job.id, NONE)
            sent = _current(several, last)
            if sent is not None and sent.parcel.job.epoch >= job.epoch:
                answers[job.id] = _compared(sent.parcel.job.epoch, sent.parcel.first, job)
            else:
                answers[job.id] = await self._replace(job, last, several, now_us)

    async def _replace(self, job: Job, last: Last, several: Sequence[Sent], now_us: int) -> PutAnswer:
        """Only parcels of earlier epochs stand there. The record comes first: from then on nobody can claim them."""
        store = self._store
        counter = max((sent.parcel.counter for sent in several), default=0) + 1
        placed, first = decisions.placed(job, store.name), payload_digest(job)
        before = last.record
        record = Record(
            nonce=new_nonce(),
            epoch=job.epoch,
            version=job.version,
            state=JobState.QUEUED,
            at_us=now_us,
            counter=counter,
            claim_seq=job.claim_seq,
            last_token=before.last_token if before else 0,
            last_digest=before.last_digest if before else 0,
            first=first,
            job=placed,
        )
        [seq] = await store.publisher.commit([Write(job.id, record, last.seq)])
        if not seq:
            # Somebody claimed the earlier one, or replaced it, in between.
            again = (await store.reader.lasts([job.id])).get(job.id, NONE)
            answer = self._by_record(job, again)
            return answer if answer is not None else await self._replace(job, again, several, now_us)
        at_us = None if decisions.is_due(job, now_us) else job.due_us
        await store.publisher.send_parcels([(Parcel(placed, counter, first), at_us)])
        await store.link.ask_all(remove(store, [sent.seq for sent in several]))
        return PutAnswer.STORED


def _surely_fits(job: Job) -> bool:
    """Whether its message is not too large, whatever else there is to it."""
    texts = len(job.error or "") + len(job.progress_note or "")
    size = len(job.data) + len(job.policy) + len(job.labels or b"") + len(job.result or b"") + 4 * texts
    return size < MESSAGE_BYTES - ROOM_BYTES


def _compared(epoch: int, first: int, job: Job) -> PutAnswer:
    if epoch > job.epoch:
        return PutAnswer.STALE_EPOCH
    return PutAnswer.DUPLICATE if first == payload_digest(job) else PutAnswer.CONFLICT


def _current(several: Sequence[Sent], last: Last) -> Sent | None:
    """The parcel that counts, if one does: an ended epoch's may lie around until it is acknowledged."""
    record = last.record
    if not several or (record is not None and record.gone and several[-1].parcel.job.epoch <= record.epoch):
        return None
    return several[-1]
