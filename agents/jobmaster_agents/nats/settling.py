"""Settling and releasing: the holder's outcome, written where its claim stands last, and then the parcel's way.

What a process claimed itself it ends without asking anything: the compare-and-set on its own claim's sequence is the
fence. Everything else, repeats and whatever was rejected included, is answered from the records.
"""

from collections.abc import Callable, Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import Release, SettleAnswer, Settlement
from jobmaster.model.job import Job, Run
from jobmaster.model.outcome import RunOutcome
from jobmaster.telemetry.failpoints import failpoint
from jobmaster.telemetry.probes import probe
from jobmaster_agents.nats.ending import Carried, Ended, end
from jobmaster_agents.nats.leases import carried
from jobmaster_agents.nats.parcels import Moves
from jobmaster_agents.nats.publisher import Write
from jobmaster_agents.nats.reader import Standing
from jobmaster_agents.nats.store import Held, Store

_BY_STORE_ONLY = frozenset({RunOutcome.LAPSED, RunOutcome.CANCELLED})
ROUNDS = 5

Item = Settlement | Release
Decide = Callable[[Job, int], tuple[Job, Run | None]]


class Finish:
    """One lease to be ended: the token that allows it, and what is made of the job."""

    __slots__ = ("answer", "decide", "digest", "id", "token")

    def __init__(self, job_id: str, token: int, digest: int, decide: Decide) -> None:
        self.id = job_id
        self.token = token
        self.digest = digest
        self.decide = decide
        self.answer: SettleAnswer | None = None


class Outcome:
    """What a batch came to."""

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.lanes: set[str] = set()


class Settling:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def settle(self, items: Sequence[Settlement]) -> tuple[list[SettleAnswer], Outcome]:
        for item in items:
            if item.outcome in _BY_STORE_ONLY:
                raise ValueError(
                    f"job {item.id}: outcome {item.outcome} is written by the store, not settled by a worker"
                )
        answers, outcome = await self._end([_settle(item) for item in items], "settle")
        stale = answers.count(SettleAnswer.STALE)
        if stale:
            probe("stale_settle", stale)
        return answers, outcome

    async def release(self, items: Sequence[Release]) -> tuple[list[SettleAnswer], Outcome]:
        return await self._end([_release(item) for item in items], "release")

    async def _end(self, finishes: Sequence[Finish], verb: str) -> tuple[list[SettleAnswer], Outcome]:
        outcome = Outcome()
        if not finishes:
            return [], outcome
        store = self._store
        await store.insist()
        now_us = await store.now_us()
        moves = Moves(store)
        if verb == "settle":
            failpoint("settle.before_commit")
        await self._from_hand(finishes, now_us, moves, outcome)
        for _ in range(ROUNDS):
            left = [finish for finish in finishes if finish.answer is None]
            if not left:
                break
            await self._from_records(left, now_us, moves, outcome)
        failpoint("settle.after_commit" if verb == "settle" else "release.after_commit")
        await moves.run()
        # What somebody else kept changing under our hands is theirs: the fence has decided.
        return [finish.answer or SettleAnswer.STALE for finish in finishes], outcome

    async def _from_hand(self, finishes: Sequence[Finish], now_us: int, moves: Moves, outcome: Outcome) -> None:
        store = self._store
        batch: dict[str, tuple[Finish, Held, Ended]] = {}
        for finish in finishes:
            held = store.shared.held.get(finish.id)
            if held is None or held.token != finish.token or finish.id in batch:
                continue
            before = Carried(held.job, held.counter, held.first, held.message, held.ack)
            batch[finish.id] = finish, held, _ended(finish, before, now_us)
        writes = [Write(job_id, ending.record, held.seq) for job_id, (_, held, ending) in batch.items()]
        await self._commit([(finish, ending) for finish, _, ending in batch.values()], writes, moves, outcome)

    async def _from_records(self, finishes: Sequence[Finish], now_us: int, moves: Moves, outcome: Outcome) -> None:
        store = self._store
        standings = await store.reader.standings([finish.id for finish in finishes])
        batch: dict[str, tuple[Finish, Ended]] = {}
        writes = []
        for finish in finishes:
            standing = standings.get(finish.id)
            if standing is None:
                finish.answer = SettleAnswer.UNKNOWN
                continue
            record, job = standing.last.record, standing.job
            if record is None or not record.leased or record.token != finish.token or job is None:
                finish.answer = _repeated(finish, standing)
            elif finish.id not in batch:
                ending = _ended(finish, carried(record, job), now_us)
                batch[finish.id] = finish, ending
                writes.append(Write(finish.id, ending.record, standing.last.seq))
        await self._commit(list(batch.values()), writes, moves, outcome)

    async def _commit(
        self, pairs: Sequence[tuple[Finish, Ended]], writes: Sequence[Write], moves: Moves, outcome: Outcome
    ) -> None:
        if not writes:
            return
        store = self._store
        seqs = await store.publisher.commit(writes)
        # Rejected ones go too: whoever wrote there has ended this lease, or its records will say what it stands on.
        empty = store.shared.let_go([write.id for write in writes])
        for (finish, ending), seq in zip(pairs, seqs, strict=True):
            if seq:
                finish.answer = SettleAnswer.ACCEPTED
                ending.follow(moves)
                if ending.record.gone:
                    outcome.gone.append(finish.id)
                else:
                    outcome.lanes.add(ending.before.job.lane)
        await store.forget_holds(empty)


def _settle(item: Settlement) -> Finish:
    return Finish(item.id, item.token, item.digest(), lambda job, now_us: decisions.settled(job, item, now_us))


def _release(item: Release) -> Finish:
    digest = decisions.release_digest(item)
    return Finish(item.id, item.token, digest, lambda job, now_us: decisions.released(job, item, now_us))


def _ended(finish: Finish, before: Carried, now_us: int) -> Ended:
    job, run = finish.decide(before.job, now_us)
    return end(before, job, run, now_us, token=finish.token, digest=finish.digest)


def _repeated(finish: Finish, standing: Standing) -> SettleAnswer:
    record = standing.last.record
    if record is None:
        return SettleAnswer.STALE
    mine = (record.last_token, record.last_digest) == (finish.token, finish.digest)
    return SettleAnswer.ACCEPTED if mine else SettleAnswer.STALE
