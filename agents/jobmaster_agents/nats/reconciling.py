"""Reconciling a store that is not what it was: raise its jobs to a new epoch, or remove them."""

from collections.abc import Sequence

from msgspec.structs import replace

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Rebase, RebaseKind, Release, StoreMode
from jobmaster.model.errors import Indeterminate, Refused
from jobmaster.model.states import JobState
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.nats.ending import Ended, end
from jobmaster_agents.nats.parcels import Moves
from jobmaster_agents.nats.publisher import Write
from jobmaster_agents.nats.records import Record, new_nonce
from jobmaster_agents.nats.standing import Stand, stand_of
from jobmaster_agents.nats.store import Store

ROUNDS = 10


class Reconciling:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def rebase(self, items: Sequence[Rebase]) -> list[bool]:
        store = self._store
        settings = await store.insist()
        if settings.mode is not StoreMode.QUARANTINED:
            raise Refused(f"agent {store.name!r} is {settings.mode}: only a quarantined store is reconciled")
        answers: dict[int, bool] = {}
        for _ in range(ROUNDS):
            left = [number for number in range(len(items)) if number not in answers]
            if not left:
                return [answers[number] for number in range(len(items))]
            await self._rebase(items, left, answers)
        raise Indeterminate("a job changed again and again while it was reconciled", agent=store.name)

    async def _rebase(self, items: Sequence[Rebase], left: Sequence[int], answers: dict[int, bool]) -> None:
        store = self._store
        now_us = await store.now_us()
        standings = await store.reader.standings(list({items[number].id for number in left}))
        batch: dict[str, tuple[int, Write, Ended | int]] = {}
        for number in left:
            item = items[number]
            stand = stand_of(standings.get(item.id))
            if item.id in batch:
                continue
            if stand is None or stand.job.epoch != item.epoch:
                answers[number] = False
            elif item.kind is RebaseKind.REMOVE:
                batch[item.id] = number, Write(item.id, _removed(stand, now_us), stand.seq), stand.parcel
            else:
                raised = _raised(stand, item.started, now_us)
                batch[item.id] = number, Write(item.id, raised.record, stand.seq), raised
        seqs = await store.publisher.commit([write for _, write, _ in batch.values()])
        failpoint("rebase.after_commit")
        moves = Moves(store)
        for (number, _, then), seq in zip(batch.values(), seqs, strict=True):
            if not seq:
                continue
            answers[number] = True
            if isinstance(then, Ended):
                then.follow(moves)
            elif then:
                moves.removed.append(then)
        await moves.run()


def _raised(stand: Stand, started: bool, now_us: int) -> Ended:
    job, run = decisions.rebased(stand.job, started, now_us)
    token, digest = stand.last_token, stand.last_digest
    if stand.leased:
        token = stand.job.token
        digest = decisions.release_digest(Release(job.id, token, run is not None))
    raised = end(stand.carried, job, run, now_us, token=token, digest=digest, again=True)
    # Its lease is no more, whoever had it.
    return replace(raised, record=replace(raised.record, worker=None))


def _removed(stand: Stand, now_us: int) -> Record:
    return Record(
        nonce=new_nonce(),
        epoch=stand.job.epoch,
        version=stand.job.version,
        state=JobState.QUEUED,
        at_us=now_us,
        counter=stand.carried.counter,
        last_token=stand.last_token,
        last_digest=stand.last_digest,
        first=stand.carried.first,
        removed=True,
    )
