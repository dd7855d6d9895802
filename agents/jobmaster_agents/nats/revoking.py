"""Taking jobs back: revoke, withdraw, purge. A record by compare-and-set decides; only then the parcel goes."""

from collections.abc import Sequence

from msgspec import Struct

from jobmaster.contracts import decisions
from jobmaster.contracts.values import RecordKind, Revocation, Revoke, RevokeAnswer, RevokeKind
from jobmaster.model.errors import Indeterminate
from jobmaster.model.job import Job, Run
from jobmaster.model.states import JobState
from jobmaster_agents.nats.census import Census
from jobmaster_agents.nats.parcels import Moves
from jobmaster_agents.nats.publisher import Write
from jobmaster_agents.nats.reader import Standing
from jobmaster_agents.nats.records import Record, new_nonce
from jobmaster_agents.nats.standing import Stand, stand_of
from jobmaster_agents.nats.store import Store

BATCH = 500
ROUNDS = 10

_RUNNING = Revocation(RevokeAnswer.RUNNING)
_SETTLED = Revocation(RevokeAnswer.SETTLED)
_CHANGED = Revocation(RevokeAnswer.CHANGED)


class Taken(Struct, frozen=True, gc=False):
    """A record to be written, and the parcel to be removed once it is."""

    write: Write
    answer: Revocation
    parcel: int


class Revoking:
    def __init__(self, store: Store, census: Census) -> None:
        self._store = store
        self._census = census

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        answers: list[Revocation | None] = [None] * len(items)
        for start in range(0, len(items), BATCH):
            await self._revoke(items, answers, list(range(start, min(start + BATCH, len(items)))))
        return [answer for answer in answers if answer is not None]

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        return await self._take(lane, RevokeKind.MOVE, limit)

    async def take_all(self, lane: str | None, kind: RevokeKind) -> int:
        """Revoke every waiting job of a lane; how many."""
        return len(await self._take(lane, kind, None))

    async def _take(self, lane: str | None, kind: RevokeKind, limit: int | None) -> list[str]:
        store = self._store
        ids = await self._census.of_lane(lane)
        taken: list[str] = []
        while ids and (limit is None or len(taken) < limit):
            page, ids = ids[:BATCH], ids[BATCH:]
            standings = await store.reader.standings(page)
            # The server may fire a scheduled parcel while it is being taken back. Where nobody fetches it would stay.
            spent = [standing.sent.seq for standing in standings.values() if standing.sent and standing.spent]
            await Moves(store, removed=spent).run()
            stands = [stand for job_id in page if (stand := stand_of(standings.get(job_id))) is not None]
            waiting = [stand.job for stand in stands if not stand.leased and lane in (None, stand.job.lane)]
            chosen = waiting if limit is None else waiting[: limit - len(taken)]
            answers = await self.revoke([Revoke(job.id, job.epoch, kind) for job in chosen])
            taken += [
                job.id
                for job, answer in zip(chosen, answers, strict=True)
                if answer.answer is RevokeAnswer.REVOKED and not answer.was_running
            ]
        return taken

    async def _revoke(self, items: Sequence[Revoke], answers: list[Revocation | None], left: list[int]) -> None:
        store = self._store
        for _ in range(ROUNDS):
            if not left:
                return
            now_us = await store.now_us()
            standings = await store.reader.standings(list({items[number].id for number in left}))
            batch: dict[str, tuple[int, Taken]] = {}
            for number in left:
                item = items[number]
                if item.id in batch:
                    continue  # the same id once more: it sees what the first one did
                decided = decide(item, standings.get(item.id), now_us)
                if isinstance(decided, Taken):
                    batch[item.id] = number, decided
                else:
                    answers[number] = decided
            await self._commit(list(batch.values()), answers)
            left = [number for number in left if answers[number] is None]
        raise Indeterminate("a job changed again and again while it was revoked", items[left[0]].id, store.name)

    async def _commit(self, batch: Sequence[tuple[int, Taken]], answers: list[Revocation | None]) -> None:
        store = self._store
        moves = Moves(store)
        seqs = await store.publisher.commit([taken.write for _, taken in batch])
        for (number, taken), seq in zip(batch, seqs, strict=True):
            if seq:
                answers[number] = taken.answer
                if taken.parcel:
                    moves.removed.append(taken.parcel)
        await moves.run()


def decide(item: Revoke, standing: Standing | None, now_us: int) -> Revocation | Taken:
    """What becomes of a job that is to be revoked: an answer without writing, or what is to be written. Pure."""
    stand = stand_of(standing)
    if stand is None:
        return _remembered(item, standing, now_us)
    if stand.job.epoch > item.epoch:
        return _SETTLED
    if not decisions.is_meant(stand.job, item):
        return _CHANGED
    if stand.leased and item.kind is RevokeKind.MOVE:
        return _RUNNING
    if stand.job.epoch < item.epoch:
        return _supersede(item, stand, now_us)
    job, run = stand.job, None
    if item.kind is RevokeKind.MOVE:
        job = decisions.moved(job)
    else:
        job, run = decisions.cancelled(job, now_us)
    answer = Revocation(RevokeAnswer.REVOKED)
    if stand.leased:
        answer = Revocation(RevokeAnswer.REVOKED, was_running=True, worker=stand.job.worker)
    return _taken(item, stand, job, run, answer, now_us)


def _remembered(item: Revoke, standing: Standing | None, now_us: int) -> Revocation | Taken:
    """What has left is remembered by its record; an epoch that never came can't come any more."""
    record = standing.last.record if standing is not None else None
    if record is not None and record.epoch >= item.epoch:
        repeated = record.epoch == item.epoch and record.revoked is not None and record.revoked.kind is item.kind
        return record.answer if repeated and record.answer is not None else _SETTLED
    if item.version is not None:
        return _CHANGED
    token, digest = (record.last_token, record.last_digest) if record is not None else (0, 0)
    answer = Revocation(RevokeAnswer.ABSENT)
    seq = standing.last.seq if standing is not None else 0
    parcel = standing.sent.seq if standing is not None and standing.sent is not None else 0
    return Taken(Write(item.id, _barred(item, answer, token, digest, None, now_us), seq), answer, parcel)


def _supersede(item: Revoke, stand: Stand, now_us: int) -> Taken:
    """The job is here, but only from an earlier placement: it goes, as a put of the revoked epoch would have made it
    go, and the record says no more than that the revoked epoch can't come. The master knows the rest."""
    run = decisions.cancelled(stand.job, now_us)[1] if stand.leased else None
    token, digest = _last_lease(stand)
    answer = Revocation(
        RevokeAnswer.ABSENT, was_running=stand.leased, worker=stand.job.worker if stand.leased else None
    )
    record = _barred(item, answer, token, digest, run, now_us)
    return Taken(Write(item.id, record, stand.seq), answer, stand.parcel)


def _taken(item: Revoke, stand: Stand, job: Job, run: Run | None, answer: Revocation, now_us: int) -> Taken:
    token, digest = _last_lease(stand)
    record = Record(
        nonce=new_nonce(),
        epoch=job.epoch,
        version=job.version,
        state=job.state,
        at_us=now_us,
        counter=stand.carried.counter,
        claim_seq=job.claim_seq,
        last_token=token,
        last_digest=digest,
        first=stand.carried.first,
        kind=RecordKind.EFFECT.value,
        job=job,
        run=run,
        revoked=item,
        answer=answer,
    )
    return Taken(Write(item.id, record, stand.seq), answer, stand.parcel)


def _barred(item: Revoke, answer: Revocation, token: int, digest: int, run: Run | None, now_us: int) -> Record:
    return Record(
        nonce=new_nonce(),
        epoch=item.epoch,
        version=0,
        state=JobState.HELD if item.kind is RevokeKind.MOVE else JobState.CANCELLED,
        at_us=now_us,
        counter=0,
        last_token=token,
        last_digest=digest,
        kind=RecordKind.EFFECT.value,
        run=run,
        revoked=item,
        answer=answer,
    )


def _last_lease(stand: Stand) -> tuple[int, int]:
    if stand.leased:
        return stand.job.token, decisions.CANCELLED_DIGEST
    return stand.last_token, stand.last_digest
