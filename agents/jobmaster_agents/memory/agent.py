"""MemoryAgent: the transport that keeps its jobs in this process, and the reference for all others.

It promises nothing durable and says so in its traits; in everything else it is exact. One lock makes every batch
atomic, no verb holds it across an await, so that handles work from any thread and any event loop.

Where to read: `store` what handles share · `shelf` the jobs and their orders · `placing`, `leasing`, `revoking`,
`reading` the verbs · `outbox`, `tombstones`, `hints`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, assert_never
from urllib.parse import urlsplit

import msgspec

from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    Control,
    ControlKind,
    ExtendAnswer,
    Extension,
    InventoryItem,
    JobFilter,
    LaneStats,
    OutboxRecord,
    Page,
    ParkReport,
    ProbeReport,
    PromoteReport,
    PutAnswer,
    ReapReport,
    Release,
    Revocation,
    Revoke,
    SettleAnswer,
    Settlement,
    Signal,
    StoreMode,
    StoreState,
    Traits,
    WorkerCard,
)
from jobmaster.model.errors import ConfigurationError, Refused
from jobmaster.model.job import Job
from jobmaster_agents.memory import leasing, placing, reading, revoking
from jobmaster_agents.memory.store import Store, shared_store


class MemoryAgent:
    """`memory:` or `memory://place`. Handles of one place, cluster and agent name share their jobs while at least one
    of them is open; the verbs do what `AgentTransport` says."""

    traits = Traits(durable=False, cross_process=False, pushes_wakeups=True, virtual_time=True, restartable=False)

    def __init__(
        self,
        url: str = "memory:",
        *,
        cluster: str,
        name: str,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        parts = urlsplit(url)
        faults = []
        if parts.scheme != "memory" or parts.path.strip("/") or parts.query or parts.fragment:
            faults.append(f"agent {name!r}: {url!r} is no memory transport; expected memory: or memory://place")
        if options:
            faults.append(f"agent {name!r}: unknown options {sorted(options)}; the memory transport has none")
        if faults:
            raise ConfigurationError(faults)
        self.name = name
        self._cluster = cluster
        self._place = parts.netloc
        self._clock = clock or SystemClock()
        self._store: Store | None = None
        self._heard: dict[str, int] = {}

    async def open(self) -> ProbeReport:
        if self._store is None:
            self._store = shared_store(self._place, self._cluster, self.name, self._clock)
        return await self.probe()

    async def close(self) -> None:
        self._store = None

    def companion(self) -> "MemoryAgent":
        return self

    async def probe(self) -> ProbeReport:
        store = await self._enter()
        with store.lock:
            return ProbeReport(
                incarnation=store.incarnation,
                mode=store.mode,
                high_water=store.outbox.high_water,
                findings=("jobs are kept in this process only and end with it",),
                facts={"kind": "memory", "jobs": str(len(store.shelf.rows))},
            )

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        store = await self._enter()
        with store.lock:
            return placing.put(store, jobs, put_deadline_us)

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        store = await self._enter()
        with store.lock:
            return placing.claim(store, worker, quotas, handlers, limit, ttl_us)

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        store = await self._enter()
        with store.lock:
            return leasing.extend(store, items, ttl_us)

    async def settle(self, items: Sequence[Settlement]) -> list[SettleAnswer]:
        store = await self._enter()
        with store.lock:
            return leasing.settle(store, items)

    async def release(self, items: Sequence[Release]) -> list[SettleAnswer]:
        store = await self._enter()
        with store.lock:
            return leasing.release(store, items)

    async def reap(self, limit: int, dead: frozenset[str] = frozenset(), expired: bool = True) -> ReapReport:
        store = await self._enter()
        with store.lock:
            return leasing.reap(store, limit, dead, expired)

    async def promote(self, limit: int) -> PromoteReport:
        store = await self._enter()
        with store.lock:
            return placing.promote(store, limit)

    async def park(self, known: frozenset[str], limit: int) -> ParkReport:
        store = await self._enter()
        with store.lock:
            return placing.park(store, known, limit)

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        store = await self._enter()
        with store.lock:
            return revoking.revoke(store, items)

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        store = await self._enter()
        with store.lock:
            return placing.amend(store, items)

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        store = await self._enter()
        with store.lock:
            return revoking.withdraw(store, lane, limit)

    async def inventory(self, after_id: str, limit: int) -> list[InventoryItem]:
        store = await self._enter()
        with store.lock:
            return reading.inventory(store, after_id, limit)

    async def find(self, ids: Sequence[str]) -> list[Job | None]:
        store = await self._enter()
        with store.lock:
            return reading.find(store, ids)

    async def jobs(self, after_id: str, before_id: str, limit: int, leased_only: bool = False) -> list[Job]:
        store = await self._enter()
        with store.lock:
            return reading.jobs(store, after_id, before_id, limit, leased_only)

    async def peek(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        store = await self._enter()
        with store.lock:
            return reading.peek(store, where, cursor, limit)

    async def stats(self) -> list[LaneStats]:
        store = await self._enter()
        with store.lock:
            return reading.stats(store)

    async def changes(self, limit: int, older_than_us: int = 0) -> list[OutboxRecord]:
        store = await self._enter()
        with store.lock:
            return store.outbox.changes(limit, store.now_us() - older_than_us)

    async def confirm(self, seqs: Sequence[int]) -> None:
        store = await self._enter()
        with store.lock:
            store.outbox.confirm(seqs)

    async def prune(self, limit: int) -> int:
        store = await self._enter()
        with store.lock:
            return store.tombstones.prune(limit, store.now_us(), store.outbox.concerns)

    async def register(self, card: WorkerCard) -> None:
        store = await self._enter()
        with store.lock:
            store.cards[card.id] = msgspec.structs.replace(card, beat_us=store.now_us())

    async def deregister(self, worker: str) -> None:
        store = await self._enter()
        with store.lock:
            store.cards.pop(worker, None)
            store.hints.take_signals(worker)

    async def workers(self) -> list[WorkerCard]:
        store = await self._enter()
        with store.lock:
            return [store.cards[worker] for worker in sorted(store.cards)]

    async def store_now_us(self) -> int:
        return (await self._enter()).now_us()

    async def control(self, change: Control) -> StoreState:
        store = await self._enter()
        with store.lock:
            purged = _control(store, change)
            return StoreState(store.mode, frozenset(store.paused_lanes), purged)

    async def signal(self, signals: Sequence[Signal]) -> None:
        store = await self._enter()
        with store.lock:
            for signal in signals:
                store.hints.leave_signal(signal)

    async def signals(self, worker: str) -> list[Signal]:
        store = await self._enter()
        with store.lock:
            return store.hints.take_signals(worker)

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        store = await self._enter()
        with store.lock:
            if self._hear(store, lanes) or seconds <= 0:
                return
            waiter = store.hints.enter(lanes=lanes)
        try:
            await waiter.wait(seconds, self._clock)
        finally:
            with store.lock:
                store.hints.leave(waiter, lanes=lanes)
                self._hear(store, lanes)

    async def watch(self, ids: frozenset[str], seconds: float) -> None:
        store = await self._enter()
        with store.lock:
            if seconds <= 0 or any(_ended(store, job_id) for job_id in ids):
                return
            waiter = store.hints.enter(ids=ids)
        try:
            await waiter.wait(seconds, self._clock)
        finally:
            with store.lock:
                store.hints.leave(waiter, ids=ids)

    async def _enter(self) -> Store:
        """The open store, after letting others run: a transport that never gives way would hide the races that every
        other one has, and let a busy caller starve its loop. Before the work, so that a call cancelled here has
        changed nothing."""
        await asyncio.sleep(0)
        if self._store is None:
            raise Refused(f"agent {self.name!r} is not open: call open() first")
        return self._store

    def _hear(self, store: Store, lanes: frozenset[str]) -> bool:
        """Take note of every ring of these lanes; whether there was a new one."""
        rings = {lane: store.hints.rings.get(lane, 0) for lane in lanes}
        news = any(self._heard.get(lane, 0) != count for lane, count in rings.items())
        self._heard.update(rings)
        return news


def _control(store: Store, change: Control) -> int:
    match change.kind:
        case ControlKind.STATE:
            pass
        case ControlKind.PAUSE:
            store.mode = StoreMode.PAUSED
        case ControlKind.RESUME:
            store.mode = StoreMode.OPEN
            for lane in list(store.shelf.counts):
                store.hints.ring(lane)
        case ControlKind.DRAIN:
            store.mode = StoreMode.DRAINING
        case ControlKind.QUARANTINE:
            store.mode = StoreMode.QUARANTINED
        case ControlKind.PAUSE_LANE:
            store.paused_lanes.add(_lane(change))
        case ControlKind.RESUME_LANE:
            store.paused_lanes.discard(_lane(change))
            store.hints.ring(_lane(change))
        case ControlKind.PURGE_LANE:
            return revoking.purge(store, _lane(change))
        case _:
            assert_never(change.kind)
    return 0


def _lane(change: Control) -> str:
    if change.lane is None:
        raise Refused(f"control {change.kind} names no lane: give Control(kind, lane)")
    return change.lane


def _ended(store: Store, job_id: str) -> bool:
    stone = store.tombstones.get(job_id)
    return job_id not in store.shelf.rows and stone is not None and not stone.moved
