"""Claiming: deliveries become leases. One reading of the outcome subjects, one window of claim records per batch.

Every claim is recorded before the job is handed out, by compare-and-set on what was read: of two who were given one
parcel, as happens after a server's crash, one gets the job, and only its outcome can be accepted.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec import structs

from jobmaster.contracts import decisions
from jobmaster.contracts.values import StoreMode
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.nats import leases
from jobmaster_agents.nats.ending import Carried, Ended, end
from jobmaster_agents.nats.fetching import MOMENT_NS, Delivery, Fetching, fetch_at_once
from jobmaster_agents.nats.judging import Verdict, judge
from jobmaster_agents.nats.parcels import Moves, give_back, later
from jobmaster_agents.nats.publisher import Write
from jobmaster_agents.nats.reader import NONE, Last
from jobmaster_agents.nats.records import Hold, Parcel, Record, StoreSettings, encode, new_nonce
from jobmaster_agents.nats.resting import Resting
from jobmaster_agents.nats.store import Held, Store
from jobmaster_agents.nats.workers import Workers

ALIVE_US = 15_000_000
FEW = 10
SECOND_US = 1_000_000
KNOWN_US = 500_000
"""How long a job is kept from a lane's workers when one of them knew no such handler and another does, while more may
wait behind it; the server fires up to 300 ms late. Where nothing more waits it goes back at once."""
UNKNOWN_FIRST_US = 1_000_000
UNKNOWN_LONGEST_US = 60_000_000
"""How long a job is kept from a lane whose worker doesn't know its handler: doubled with every turn."""


class Candidate:
    """A delivery that may be claimed: the job as it stands, and the sequence its claim is to follow."""

    __slots__ = ("delivery", "job", "last", "whole")

    def __init__(self, delivery: Delivery, last: Last) -> None:
        self.delivery = delivery
        self.last = last
        record = last.record
        self.whole = record is not None and record.epoch == delivery.parcel.job.epoch and record.job is not None
        """The job is not what its parcel says: its records repeat it."""
        self.job = record.job if self.whole and record is not None and record.job is not None else delivery.parcel.job

    def carried(self) -> Carried:
        delivery = self.delivery
        parcel = delivery.parcel
        return Carried(self.job, parcel.counter, parcel.first, delivery.seq, delivery.ack, delivery.place)

    @property
    def ended(self) -> tuple[int, int]:
        record = self.last.record
        return (record.last_token, record.last_digest) if record is not None else (0, 0)


class Claiming:
    def __init__(self, store: Store, workers: Workers) -> None:
        self._store = store
        self._workers = workers
        self._fetching = Fetching(store)
        self.resting = Resting()
        self._idle = False
        """Whether the last claim found next to nothing."""
        self._seen: StoreSettings | None = None
        """The settings as the last look found them."""

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        settings = self._seen
        if settings is None or settings.mode is not StoreMode.OPEN or settings.paused_lanes:
            settings = self._seen = await self._store.insist()
        if settings.mode is not StoreMode.OPEN or not handlers:
            return []
        rooms = {lane: min(quota, limit) for lane, quota in quotas.items() if lane not in settings.paused_lanes}
        rooms = self._awake({lane: room for lane, room in rooms.items() if room > 0}, handlers)
        if not rooms:
            return []
        await self._store.consumers.ensure(set(rooms))
        claimed: list[Job] = []
        if self._idle:
            claimed = await self._claim_at_once(rooms, worker, handlers, limit, ttl_us)
        else:
            for lane, most in rooms.items():
                room = min(most, limit - len(claimed))
                claimed += await self._claim_lane(lane, worker, handlers, room, ttl_us)
        if not claimed:
            rooms = self._awake(rooms, handlers)
            claimed = await self._claim_at_once(rooms, worker, handlers, limit, ttl_us, MOMENT_NS)
        if not claimed:
            # Who finds nothing must still learn that the store is another one.
            self._seen = await self._store.insist()
        self._idle = len(claimed) < FEW
        return claimed

    def _awake(self, rooms: Mapping[str, int], handlers: frozenset[str]) -> dict[str, int]:
        """The lanes that are not left to others for a moment."""
        now = self._store.clock.mono()
        return {lane: room for lane, room in rooms.items() if not self.resting.rests(lane, handlers, now)}

    async def _claim_at_once(
        self,
        rooms: Mapping[str, int],
        worker: str,
        handlers: frozenset[str],
        limit: int,
        ttl_us: int,
        wait_ns: int = 0,
    ) -> list[Job]:
        found = await fetch_at_once(self._store, rooms, wait_ns)
        await self._store.link.tell(give_back([one.ack for one in found[limit:]]))
        filled = Counter(one.parcel.job.lane for one in found)
        emptied = {lane for lane, room in rooms.items() if filled[lane] < room}
        return await self._take(await self._allowed(found[:limit]), worker, handlers, ttl_us, emptied)

    async def _claim_lane(self, lane: str, worker: str, handlers: frozenset[str], room: int, ttl_us: int) -> list[Job]:
        claimed: list[Job] = []
        while len(claimed) < room:
            asked = room - len(claimed)
            deliveries = await self._fetching.fetch(lane, asked)
            if not deliveries:
                break
            emptied = {lane} if len(deliveries) < asked else set[str]()
            claimed += await self._take(await self._allowed(deliveries), worker, handlers, ttl_us, emptied)
            if emptied:
                break
        return claimed

    async def _allowed(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those that may be claimed by the settings as they stand now, after the deliveries came: what was put after
        a pause is not claimed, however long ago this claim began. The others go back."""
        if not deliveries:
            return deliveries
        try:
            settings = self._seen = await self._store.insist()
        except Refused:
            await self._store.link.tell(give_back([one.ack for one in deliveries]))
            raise
        closed = settings.mode is not StoreMode.OPEN
        if not closed and not settings.paused_lanes:
            return deliveries
        kept = [one for one in deliveries if not closed and one.parcel.job.lane not in settings.paused_lanes]
        await self._store.link.tell(give_back([one.ack for one in deliveries if one not in kept]))
        return kept

    async def _take(
        self,
        deliveries: Sequence[Delivery],
        worker: str,
        handlers: frozenset[str],
        ttl_us: int,
        emptied: Collection[str],
        *,
        presuming: bool = True,
    ) -> list[Job]:
        """`emptied`: the lanes in which nothing more waits.

        `presuming`: a job that comes for the first time, in its first epoch, is presumed to have no record: the
        compare-and-set of its claim says whether that is so, and nothing need be read before it."""
        if not deliveries:
            return []
        store = self._store
        now_us = await store.now_us()
        first = {one.id: one for one in reversed(deliveries)}
        if len(first) < len(deliveries):
            # A schedule may fire twice when a server is killed: the second parcel is judged by what the first came to.
            await store.link.tell(later([(one.ack, SECOND_US) for one in deliveries if first[one.id] is not one]))
            deliveries = [one for one in deliveries if first[one.id] is one]
        presumed = {one.id: one for one in deliveries if presuming and self._seems_new(one)}
        lasts = await store.reader.lasts([one.id for one in deliveries if one.id not in presumed])
        moves, free, leased = Moves(store), [], []
        foreign: Collection[str] = ()
        for delivery in deliveries:
            last = lasts.get(delivery.id, NONE)
            match judge(delivery, last.record):
                case Verdict.FREE:
                    free.append(Candidate(delivery, last))
                case Verdict.LEASED:
                    leased.append((delivery, last))
                case Verdict.SPENT:
                    moves.done.append(delivery.ack)
                case Verdict.FORWARD:
                    _forward(delivery, last.record, now_us, moves)
        if leased:
            free += await self._take_over(leased, now_us, moves)
        aside = [one for one in free if one.job.handler not in handlers or decisions.is_expired(one.job, now_us)]
        if aside:
            free = [one for one in free if one not in aside]
            foreign = await self._set_aside(aside, now_us, moves, emptied)
        self._rest(foreign, {one.job.lane for one in free}, handlers)
        jobs, lost = await self._record(free, worker, ttl_us, now_us)
        await moves.run()
        wrong = [presumed[job_id] for job_id in lost if job_id in presumed]
        return jobs + await self._take(wrong, worker, handlers, ttl_us, emptied, presuming=False)

    def _rest(self, foreign: Collection[str], own: Collection[str], handlers: frozenset[str]) -> None:
        """Leave the lanes to others in which there were only jobs that others know."""
        now = self._store.clock.mono()
        for lane in foreign:
            if lane not in own:
                self.resting.begin(lane, handlers, now)
        for lane in own:
            self.resting.end(lane, handlers)

    def _seems_new(self, one: Delivery) -> bool:
        parcel = one.parcel
        if one.again or parcel.counter or parcel.job.epoch > 1:
            return False
        return parcel.job.lane not in self._store.options.optimistic

    async def _record(
        self, free: Sequence[Candidate], worker: str, ttl_us: int, now_us: int
    ) -> tuple[list[Job], list[str]]:
        """Claim what is free: the jobs, and the ids of those of which something else was written first."""
        if not free:
            return [], []
        store = self._store
        for one in free:
            if one.delivery.again and self._unrecorded(one):
                # Somebody may have run it, with the token that comes first.
                one.job = structs.replace(one.job, claim_seq=one.job.claim_seq + 1)
                one.whole = True
        jobs = [decisions.claimed(one.job, worker) for one in free]
        holder = store.shared.new_holder(len(free))
        hold = Hold(worker, ttl_us, [(job.id, job.token) for job in jobs])
        # Before the claims: a lease that nobody can find by its hold would wait for its parcel to come again.
        await store.link.tell([(store.subjects.hold(store.shared.owner, holder.number), b"", encode(hold))])
        trusted = {one.delivery.id for one in free if self._unrecorded(one) and not one.whole}
        writes = [
            Write(job.id, claim_record(one, job, ttl_us, now_us), one.last.seq)
            for one, job in zip(free, jobs, strict=True)
            if job.id not in trusted
        ]
        seqs = dict(zip([write.id for write in writes], await store.publisher.commit(writes), strict=True))
        failpoint("claim.after_commit")
        given = []
        lost = []
        with store.shared.lock:
            for one, job in zip(free, jobs, strict=True):
                seq = one.last.seq if job.id in trusted else seqs[job.id]
                if not seq and job.id not in trusted:
                    lost.append(job.id)
                    continue
                delivery = one.delivery
                parcel = delivery.parcel
                store.shared.held[job.id] = Held(
                    job, job.token, seq, parcel.counter, delivery.seq, parcel.first, delivery.ack, holder
                )
                given.append(job)
            holder.open -= len(lost)
        return given, lost

    def _unrecorded(self, one: Candidate) -> bool:
        """Whether the lane trusts a first delivery, and nothing is written of the job in this epoch. `suspect` and
        `at_most_once` jobs are never trusted: what they are is in their records."""
        record, job = one.last.record, one.job
        if job.lane not in self._store.options.optimistic or job.suspect or decisions.policy_of(job).at_most_once:
            return False
        return record is None or record.epoch < job.epoch

    async def _take_over(self, leased: Sequence[tuple[Delivery, Last]], now_us: int, moves: Moves) -> list[Candidate]:
        """Parcels that came again though a lease stands on them: those whose lease is over lapse, the others come
        again when it may be. A lapse whose time was judged by a clock that just came back is the reaper's to find."""
        store = self._store
        until = leases.ends(await store.reader.holds())
        free, waiting = [], []
        for delivery, last in leased:
            record = last.record
            assert record is not None
            end_us = leases.end_of(delivery.id, record, until)
            if now_us <= end_us + record.ttl_us:
                waiting.append((delivery.ack, max(end_us + record.ttl_us - now_us, 100_000)))
                continue
            again = await leases.lapse(store, delivery, last, now_us, moves)
            if again is not None:
                free.append(Candidate(delivery, again))
        await store.link.tell(later(waiting))
        return free

    async def _set_aside(
        self, aside: Sequence[Candidate], now_us: int, moves: Moves, emptied: Collection[str]
    ) -> set[str]:
        """End what is past its time; send what nobody here can run round again. A little later each time, unless a
        live worker knows the handler, who should not have to wait for it. The lanes whose last jobs went back to
        such a worker at once."""
        cards = await self._workers.workers()
        known = {name for card in cards if card.beat_us > now_us - ALIVE_US for name in card.handlers}
        endings = [_put_aside(one, now_us, known, emptied) for one in aside]
        writes = [Write(one.job.id, ending.record, one.last.seq) for one, ending in zip(aside, endings, strict=True)]
        for ending, seq in zip(endings, await self._store.publisher.commit(writes), strict=True):
            if seq:
                ending.follow(moves)
        return {one.job.lane for one in aside if one.job.lane in emptied and one.job.handler in known}


def _put_aside(one: Candidate, now_us: int, known: Collection[str], emptied: Collection[str]) -> Ended:
    carried = one.carried()
    token, digest = one.ended
    if decisions.is_expired(one.job, now_us):
        ended: Job | None = decisions.expired(one.job, now_us)
    else:
        ended = decisions.unroutable(one.job, now_us)
    if ended is not None:
        return end(carried, ended, None, now_us, token=token, digest=digest)
    if one.job.handler in known and one.job.lane in emptied:
        return end(carried, one.job, None, now_us, token=token, digest=digest, again=True)
    if one.job.handler in known:
        turns, wait_us = 0, KNOWN_US
    else:
        turns = one.delivery.parcel.turns
        wait_us = min(UNKNOWN_FIRST_US << min(turns, 6), UNKNOWN_LONGEST_US)
    at_us = now_us + wait_us
    return end(carried, one.job, None, now_us, token=token, digest=digest, not_before_us=at_us, turns=turns + 1)


def claim_record(one: Candidate, job: Job, ttl_us: int, now_us: int) -> Record:
    """That a job is leased. The job itself is in the parcel, unless it has changed since."""
    token, digest = one.ended
    delivery = one.delivery
    return Record(
        nonce=new_nonce(),
        epoch=job.epoch,
        version=job.version,
        state=JobState.RUNNING,
        at_us=now_us,
        counter=delivery.parcel.counter,
        claim_seq=job.claim_seq,
        worker=job.worker,
        ttl_us=ttl_us,
        message=delivery.seq,
        ack=delivery.ack,
        last_token=token,
        last_digest=digest,
        first=delivery.parcel.first,
        job=job if one.whole else None,
    )


def _forward(delivery: Delivery, record: Record | None, now_us: int, moves: Moves) -> None:
    assert record is not None
    if record.job is not None:
        at_us = None if decisions.is_due(record.job, now_us) else record.job.due_us
        moves.published.append((Parcel(record.job, record.counter, record.first), at_us))
    moves.done.append(delivery.ack)
