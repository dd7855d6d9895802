"""Leases: when they end, by the server's time, and what becomes of those that did.

A lease lasts until the latest hold that names it, or its claim, says. Both are messages, so their times are the
server's own. The acknowledgement's time is only the net below: it brings a parcel back whatever gets lost.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import structs

from jobmaster.contracts import decisions
from jobmaster.contracts.values import ExtendAnswer, Extension, ReapReport, StoreMode
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.telemetry.probes import probe
from jobmaster_agents.nats.ending import Carried, end
from jobmaster_agents.nats.fetching import Delivery
from jobmaster_agents.nats.parcels import Moves, keep
from jobmaster_agents.nats.publisher import Write, read_ack
from jobmaster_agents.nats.reader import NONE, Last, Standing, Stored, job_of
from jobmaster_agents.nats.records import Hold, Record, encode, new_nonce
from jobmaster_agents.nats.store import Held, Store

LOST_US = 300_000_000
"""A hold whose leases could all be ended is removed; one that speaks of what is gone, after this."""

Lease = tuple[str, int]


def ends(holds: Iterable[tuple[Stored, Hold]]) -> dict[Lease, int]:
    """Until when each lease lasts, as its holds say."""
    until: dict[Lease, int] = {}
    for stored, hold in holds:
        end_us = stored.at_us + hold.ttl_us
        for lease in hold.leases:
            # Oldest first: an extension may also shorten a lease.
            until[lease] = end_us
    return until


def end_of(job_id: str, record: Record, until: Mapping[Lease, int]) -> int:
    """Until when the lease of a record lasts. Holds are the later word: an extension may also shorten a lease."""
    return until.get((job_id, record.token), record.at_us + record.ttl_us)


class Leases:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        if not items:
            return []
        store = self._store
        await store.insist()
        now_us = await store.now_us()
        ids = [item.id for item in items]
        lasts = await store.reader.lasts(ids)
        until = ends(await store.reader.holds())
        await self._own_up(items, lasts, until, now_us, ttl_us)
        answers = [_judge(item, lasts.get(item.id, NONE), until, now_us) for item in items]
        held = [item for item, answer in zip(items, answers, strict=True) if answer is ExtendAnswer.HELD]
        told = [item for item in held if item.started or item.progress is not None]
        if told:
            lost = await self._record(told, lasts, now_us)
            answers = [
                ExtendAnswer.LOST if item.id in lost and answer is ExtendAnswer.HELD else answer
                for item, answer in zip(items, answers, strict=True)
            ]
            held = [item for item in held if item.id not in lost]
        if held:
            await self._hold(held, lasts, ttl_us)
        return answers

    async def _own_up(
        self, items: Sequence[Extension], lasts: dict[str, Last], until: Mapping[Lease, int], now_us: int, ttl_us: int
    ) -> None:
        """Write the claims that an optimistic lane left out: a lease that lasts long enough to be extended is worth
        its record. `lasts` says afterwards what stands."""
        writes = []
        for item in items:
            held, last = self._store.shared.held.get(item.id), lasts.get(item.id, NONE)
            if held is None or held.token != item.token or held.seq != last.seq or until.get(_lease(item), 0) <= now_us:
                continue
            if last.record is None or last.record.epoch < held.job.epoch:
                writes.append(Write(item.id, _late_claim(held, last.record, now_us, ttl_us), last.seq))
        for write, seq in zip(writes, await self._store.publisher.commit(writes), strict=True):
            if seq:
                self._store.shared.held[write.id].seq = seq
                lasts[write.id] = Last(seq, write.record)

    async def _record(self, items: Sequence[Extension], lasts: dict[str, Last], now_us: int) -> set[str]:
        """Write down what these runs report; the ids of those that were lost in between."""
        store = self._store
        writes: list[Write] = []
        jobs: dict[str, Job] = {}
        standings = await store.reader.standings([item.id for item in items])
        for item in items:
            standing = standings.get(item.id)
            job = jobs.get(item.id) or (standing.job if standing else None)
            record = lasts[item.id].record
            if job is None or record is None:
                continue
            extended = decisions.extended(job, item, now_us)
            if extended is not job:
                jobs[item.id] = extended
        for job_id, job in jobs.items():
            record = lasts[job_id].record
            assert record is not None
            writes.append(
                Write(
                    job_id, structs.replace(record, nonce=new_nonce(), version=job.version, job=job), lasts[job_id].seq
                )
            )
        lost = set()
        for write, seq in zip(writes, await store.publisher.commit(writes), strict=True):
            held = store.shared.held.get(write.id)
            if not seq:
                lost.add(write.id)
            elif held is not None and held.token == write.record.token:
                assert write.record.job is not None
                held.job, held.seq = write.record.job, seq
        return lost

    async def _hold(self, items: Sequence[Extension], lasts: dict[str, Last], ttl_us: int) -> None:
        """Prolong: one message for all of them, answered, and the parcels kept."""
        store = self._store
        leases = list({item.id: (item.id, item.token) for item in items}.values())
        holder = store.shared.new_holder(len(leases))
        empty = []
        with store.shared.lock:
            for job_id, token in leases:
                held = store.shared.held.get(job_id)
                if held is not None and held.token == token:
                    held.holder.open -= 1
                    if not held.holder.open:
                        empty.append(held.holder)
                    held.holder = holder
        worker = next((record.worker for item in items if (record := lasts[item.id].record)), None)
        hold = Hold(worker or "", ttl_us, leases)
        subject = store.subjects.hold(store.shared.owner, holder.number)
        ack = read_ack(await store.link.ask(subject, encode(hold)))
        if ack is None or ack.error is not None:
            raise store.link.unreachable("a hold was not taken")
        await store.forget_holds(empty)
        acks = [record.ack for job_id, _ in leases if (record := lasts[job_id].record) and record.ack]
        await store.link.tell(keep(acks))

    async def reap(self, limit: int, dead: frozenset[str], expired: bool) -> ReapReport:
        store = self._store
        settings, _ = await store.reader.settings()
        if settings is None or settings.mode is StoreMode.QUARANTINED or limit <= 0:
            return ReapReport()
        now_us = await store.ask_now_us()
        holds = await store.reader.holds()
        until = ends(holds)
        workers = {(job_id, token): hold.worker for _, hold in holds for job_id, token in hold.leases}
        due = [lease for lease, end_us in until.items() if (expired and end_us <= now_us) or workers[lease] in dead]
        crashed: list[str] = []
        ended = 0
        if due:
            standings = await store.reader.standings(sorted({job_id for job_id, _ in due}))
            over = [
                (job_id, standings[job_id])
                for job_id, token in due
                if job_id in standings and _leased_by(standings[job_id].last.record, token)
            ]
            over.sort(key=lambda pair: (until[pair[0], _token(pair[1])], pair[0]))
            over = [(job_id, standing) for job_id, standing in over if standing.job is not None][:limit]
            ended, crashed = await self._lapse(over, now_us)
        if not ended:
            await self._sweep(holds, until, now_us)
        else:
            probe("lease_lapsed", ended)
        return ReapReport(requeued=ended - len(crashed), crashed=tuple(crashed), more=ended == limit)

    async def _lapse(self, over: Sequence[tuple[str, Standing]], now_us: int) -> tuple[int, list[str]]:
        store = self._store
        writes, endings, moves = [], [], Moves(store)
        for job_id, standing in over:
            record, job = standing.last.record, standing.job
            assert record is not None
            assert job is not None
            lapsed, run = decisions.lapsed(job, now_us)
            ending = end(carried(record, job), lapsed, run, now_us, token=record.token, digest=decisions.LAPSED_DIGEST)
            writes.append(Write(job_id, ending.record, standing.last.seq))
            endings.append(ending)
        ended = [ending for ending, seq in zip(endings, await store.publisher.commit(writes), strict=True) if seq]
        for ending in ended:
            ending.follow(moves)
        await moves.run()
        return len(ended), [ending.before.job.id for ending in ended if ending.record.gone]

    async def _sweep(self, holds: Sequence[tuple[Stored, Hold]], until: Mapping[Lease, int], now_us: int) -> None:
        """Remove holds none of whose leases stands any more."""
        past = [(stored, hold) for stored, hold in holds if stored.at_us + hold.ttl_us <= now_us]
        if not past:
            return
        store = self._store
        lasts = await store.reader.lasts([job_id for _, hold in past for job_id, _ in hold.leases])
        requests = []
        for stored, hold in past:
            if not any(_leased_by(lasts.get(job_id, NONE).record, token) for job_id, token in hold.leases):
                requests.append(
                    (
                        f"$JS.API.STREAM.MSG.DELETE.{store.subjects.ctl_stream}",
                        b"",
                        b'{"seq":%d,"no_erase":true}' % stored.seq,
                    )
                )
        await store.link.tell(requests)


def _lease(item: Extension) -> Lease:
    return item.id, item.token


def _late_claim(held: Held, before: Record | None, now_us: int, ttl_us: int) -> Record:
    job = held.job
    return Record(
        nonce=new_nonce(),
        epoch=job.epoch,
        version=job.version,
        state=JobState.RUNNING,
        at_us=now_us,
        counter=held.counter,
        claim_seq=job.claim_seq,
        worker=job.worker,
        ttl_us=ttl_us,
        message=held.message,
        ack=held.ack,
        last_token=before.last_token if before is not None else 0,
        last_digest=before.last_digest if before is not None else 0,
        first=held.first,
        job=job,
    )


def carried(record: Record, job: Job) -> Carried:
    """What the next record of a leased job takes over."""
    return Carried(job, record.counter, record.first, record.message, record.ack)


async def lapse(store: Store, delivery: Delivery, last: Last, now_us: int, moves: Moves) -> Last | None:
    """End a lease that is over and whose parcel is in hand; the record that stands now, if the job is to be run."""
    record = last.record
    assert record is not None
    job = job_of(record, delivery.parcel)
    lapsed, run = decisions.lapsed(job, now_us)
    ending = end(carried(record, job), lapsed, run, now_us, token=record.token, digest=decisions.LAPSED_DIGEST)
    [seq] = await store.publisher.commit([Write(delivery.id, ending.record, last.seq)])
    if not seq:
        return None
    probe("lease_lapsed")
    if ending.record.gone:
        moves.done.append(delivery.ack)
        return None
    return Last(seq, ending.record)


def _judge(item: Extension, last: Last, until: Mapping[Lease, int], now_us: int) -> ExtendAnswer:
    record = last.record
    if not _leased_by(record, item.token):
        cancelled = record is not None and (record.last_token, record.last_digest) == (
            item.token,
            decisions.CANCELLED_DIGEST,
        )
        return ExtendAnswer.CANCELLED if cancelled else ExtendAnswer.LOST
    assert record is not None
    return ExtendAnswer.HELD if end_of(item.id, record, until) > now_us else ExtendAnswer.LOST


def _leased_by(record: Record | None, token: int) -> bool:
    return record is not None and record.leased and record.token == token


def _token(standing: Standing) -> int:
    assert standing.last.record is not None
    return standing.last.record.token
