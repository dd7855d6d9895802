"""The store behind one agent's name: what its handles share, and the few writes every verb is made of.

Nothing here locks; whoever calls holds `lock`, which is also what makes a batch atomic.
"""

import threading
from collections.abc import Callable
from typing import TypeVar, cast
from uuid import uuid4
from weakref import WeakValueDictionary

from jobmaster.contracts import decisions
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import RecordKind, Revocation, Revoke, StoreMode, WorkerCard
from jobmaster.model.job import Job, Run
from jobmaster.model.states import JobState
from jobmaster_agents.memory.hints import Hints
from jobmaster_agents.memory.outbox import Outbox
from jobmaster_agents.memory.shelf import Place, Row, Shelf
from jobmaster_agents.memory.tombstones import Tombstone, Tombstones


class Store:
    """One agent's jobs. Lives as long as a handle is open on it."""

    def __init__(self, agent: str, clock: Clock) -> None:
        self.agent = agent
        self.clock = clock
        self.lock = threading.Lock()
        self.incarnation = uuid4().hex
        self.mode = StoreMode.OPEN
        self.paused_lanes: set[str] = set()
        self.hints = Hints()
        self.shelf = Shelf(self.hints.ring)
        self.outbox = Outbox()
        self.tombstones = Tombstones()
        self.findings: tuple[str, ...] = ("jobs are kept in this process only and end with it",)
        self.cards: dict[str, WorkerCard] = {}

    def now_us(self) -> int:
        """Store time. It is the clock of whoever opened the store first: a later handle's may differ and counts for
        nothing, as with any store."""
        return self.clock.wall_us()

    def shelve(self, row: Row, job: Job, now_us: int) -> None:
        """A waiting job stands where its due time says: delayed, or ready in a new place in line."""
        if decisions.is_due(job, now_us):
            self.shelf.set(row, job, Place.READY, self.shelf.next_seq())
        else:
            self.shelf.set(row, job, Place.DELAYED)

    def end_lease(self, row: Row, job: Job, run: Run | None, digest: int, now_us: int) -> None:
        """A lease ended and left the job terminal, delayed, or ready again. One that is due no later than before
        keeps its place in line."""
        token = row.job.token
        if job.terminal:
            self.end(row, job, run, token, digest, now_us)
            return
        row.last_token, row.last_digest = token, digest
        if job.due_us == row.job.due_us:
            self.shelf.set(row, job, Place.READY)
        else:
            self.shelve(row, job, now_us)
        if run is not None:
            self.outbox.append(job.id, decisions.record_kind(job), now_us, job, run)

    def end(self, row: Row, job: Job, run: Run | None, token: int, digest: int, now_us: int) -> None:
        """A job reached its end here: removed, with tombstone and record."""
        self.shelf.remove(row)
        self.tombstones.set(job.id, Tombstone(epoch=job.epoch, token=token, digest=digest, at_us=now_us))
        self.outbox.append(job.id, decisions.record_kind(job), now_us, job, run)
        self.hints.ended(job.id)

    def expire(self, row: Row, now_us: int) -> None:
        """A waiting job ends `failed(expired)`."""
        self.end(row, decisions.expired(row.job, now_us), None, row.last_token, row.last_digest, now_us)

    def take_back(
        self, row: Row, job: Job, run: Run | None, revoke: Revoke, answer: Revocation, now_us: int
    ) -> Revocation:
        """A job is revoked: removed, with a tombstone that knows the answer, and an `effect` record."""
        if row.place is Place.LEASED:
            token, digest = row.job.token, decisions.CANCELLED_DIGEST
        else:
            token, digest = row.last_token, row.last_digest
        self.shelf.remove(row)
        self.tombstones.set(
            job.id,
            Tombstone(
                epoch=job.epoch,
                token=token,
                digest=digest,
                at_us=now_us,
                moved=job.state is JobState.HELD,
                revoked=revoke.kind,
                answer=answer,
            ),
        )
        self.outbox.append(job.id, RecordKind.EFFECT, now_us, job, run)
        self.hints.ended(job.id)
        return answer


S = TypeVar("S", bound=Store)

_stores: WeakValueDictionary[tuple[str, str, str], Store] = WeakValueDictionary()
_stores_lock = threading.Lock()


def shared_store(place: str, cluster: str, agent: str, make: Callable[[], S]) -> S:
    """The process's store of that name, made if nobody holds it any more. A place is of one kind: whoever comes later
    finds what the first one made."""
    with _stores_lock:
        store = _stores.get((place, cluster, agent))
        if store is None:
            store = make()
            _stores[place, cluster, agent] = store
        return cast("S", store)
