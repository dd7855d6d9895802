"""Amending: a waiting job gets its changes in a record, and a new parcel where it now belongs."""

from collections.abc import Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import AmendAnswer, Amendment
from jobmaster.model.errors import Indeterminate
from jobmaster_agents.nats.ending import Ended, end
from jobmaster_agents.nats.parcels import Moves
from jobmaster_agents.nats.publisher import Write
from jobmaster_agents.nats.standing import Stand, stand_of
from jobmaster_agents.nats.store import Store

ROUNDS = 10


class Amending:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        answers: dict[int, AmendAnswer] = {}
        tries = 0
        while left := [number for number in range(len(items)) if number not in answers]:
            before = len(answers)
            await self._amend(items, left, answers)
            tries = tries + 1 if len(answers) == before else 0
            if tries == ROUNDS:
                item = items[left[0]]
                raise Indeterminate("the job changed again and again while it was amended", item.id, self._store.name)
        return [answers[number] for number in range(len(items))]

    async def _amend(self, items: Sequence[Amendment], left: Sequence[int], answers: dict[int, AmendAnswer]) -> None:
        """One round: of several changes to one job, the first."""
        store = self._store
        now_us = await store.now_us()
        standings = await store.reader.standings(list({items[number].id for number in left}))
        batch: dict[str, tuple[int, Stand, Ended]] = {}
        seen: set[str] = set()
        for number in left:
            item = items[number]
            if item.id in seen:
                continue
            seen.add(item.id)
            stand = stand_of(standings.get(item.id))
            if stand is None:
                answers[number] = AmendAnswer.UNKNOWN
            elif stand.leased:
                answers[number] = AmendAnswer.RUNNING
            elif stand.job.version != item.version:
                answers[number] = AmendAnswer.CONFLICT
            else:
                batch[item.id] = number, stand, _amended(stand, item, now_us)
        seqs = await store.publisher.commit(
            [Write(job_id, ending.record, stand.seq) for job_id, (_, stand, ending) in batch.items()]
        )
        moves = Moves(store)
        for (number, _, ending), seq in zip(batch.values(), seqs, strict=True):
            if seq:
                answers[number] = AmendAnswer.CHANGED
                ending.follow(moves)
        await moves.run()


def _amended(stand: Stand, item: Amendment, now_us: int) -> Ended:
    job = decisions.amended(stand.job, item)
    return end(stand.carried, job, None, now_us, token=stand.last_token, digest=stand.last_digest, again=True)
