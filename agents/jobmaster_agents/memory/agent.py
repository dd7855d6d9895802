"""MemoryAgent: the transport that keeps its jobs in this process, and the reference for all others.

It promises nothing durable and says so in its traits; in everything else it is exact. One lock makes every batch
atomic, no verb holds it across an await, so that handles work from any thread and any event loop.

Where to read: `store` what handles share · `shelf` the jobs and their orders · `placing`, `leasing`, `revoking`,
`reading`, `control`, `reconciling`, `workers` the verbs · `outbox`, `tombstones`, `hints`.

A transport that keeps its jobs in memory too, but does something about their loss, may derive from it: `shared` makes
the store, and `locked` sees every call. Given one order of calls and their times, a store always comes to the same.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple

from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    Control,
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
    Rebase,
    Release,
    Revocation,
    Revoke,
    SettleAnswer,
    Settlement,
    Signal,
    StoreState,
    Traits,
    WorkerCard,
)
from jobmaster.model.errors import ConfigurationError, Refused, quoted
from jobmaster.model.job import Job
from jobmaster_agents.memory import control, leasing, placing, reading, reconciling, revoking, workers
from jobmaster_agents.memory.store import Store, shared_store

Given = TypeVarTuple("Given")
Answer = TypeVar("Answer")

_URL = re.compile(r"memory:(//[A-Za-z0-9._-]*)?/?")


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
        faults = [] if _URL.fullmatch(url) else [_wrong_url(name, url)]
        if options:
            faults.append(f"agent {name!r}: unknown options {sorted(options)}; the memory transport has none")
        if faults:
            raise ConfigurationError(faults)
        self.name = name
        self._cluster = cluster
        self._place = url.partition(":")[2].strip("/")
        self._clock = clock or SystemClock()
        self._store: Store | None = None
        self._incarnation = ""
        """What this handle insists on."""
        self._heard: dict[str, int] = {}

    async def open(self) -> ProbeReport:
        if self._store is None:
            self._store = self.shared()
            self._incarnation = self._store.incarnation
        return await self.probe()

    async def close(self) -> None:
        self._store = None

    def companion(self) -> "MemoryAgent":
        return self

    async def probe(self) -> ProbeReport:
        return await self.locked(control.probe, self._incarnation)

    async def rejoin(self, incarnation: str) -> ProbeReport:
        report = await self.locked(control.probe, incarnation)
        if not report.joined:
            raise Refused(another(self.name, report.incarnation, incarnation))
        self._incarnation = incarnation
        return report

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        return await self.locked(placing.put, jobs, put_deadline_us, insist=True)

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        return await self.locked(placing.claim, worker, quotas, handlers, limit, ttl_us, insist=True)

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        return await self.locked(leasing.extend, items, ttl_us, insist=True)

    async def settle(self, items: Sequence[Settlement]) -> list[SettleAnswer]:
        return await self.locked(leasing.settle, items, insist=True)

    async def release(self, items: Sequence[Release]) -> list[SettleAnswer]:
        return await self.locked(leasing.release, items, insist=True)

    async def reap(self, limit: int, dead: frozenset[str] = frozenset(), expired: bool = True) -> ReapReport:
        return await self.locked(leasing.reap, limit, dead, expired)

    async def promote(self, limit: int) -> PromoteReport:
        return await self.locked(placing.promote, limit)

    async def park(self, known: frozenset[str], limit: int) -> ParkReport:
        return await self.locked(placing.park, known, limit)

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        return await self.locked(revoking.revoke, items)

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        return await self.locked(placing.amend, items)

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        return await self.locked(revoking.withdraw, lane, limit)

    async def inventory(self, after_id: str, limit: int) -> list[InventoryItem]:
        return await self.locked(reading.inventory, after_id, limit)

    async def rebase(self, items: Sequence[Rebase]) -> list[bool]:
        return await self.locked(reconciling.rebase, items, insist=True)

    async def adopt(self, incarnation: str) -> ProbeReport:
        insist = (await self.probe()).incarnation != incarnation
        report = await self.locked(reconciling.adopt, incarnation, insist=insist)
        self._incarnation = incarnation
        return report

    async def find(self, ids: Sequence[str]) -> list[Job | None]:
        return await self.locked(reading.find, ids)

    async def jobs(self, after_id: str, before_id: str, limit: int, leased_only: bool = False) -> list[Job]:
        return await self.locked(reading.jobs, after_id, before_id, limit, leased_only)

    async def peek(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        return await self.locked(reading.peek, where, cursor, limit)

    async def stats(self) -> list[LaneStats]:
        return await self.locked(reading.stats)

    async def changes(self, limit: int, older_than_us: int = 0) -> list[OutboxRecord]:
        return await self.locked(control.changes, limit, older_than_us)

    async def confirm(self, seqs: Sequence[int]) -> None:
        await self.locked(control.confirm, seqs)

    async def prune(self, limit: int) -> int:
        return await self.locked(control.prune, limit)

    async def register(self, card: WorkerCard) -> None:
        await self.locked(workers.register, card)

    async def deregister(self, worker: str) -> None:
        await self.locked(workers.deregister, worker)

    async def workers(self) -> list[WorkerCard]:
        return await self.locked(workers.workers)

    async def store_now_us(self) -> int:
        return await self.locked(Store.now_us)

    async def control(self, change: Control) -> StoreState:
        return await self.locked(control.control, change)

    async def signal(self, signals: Sequence[Signal]) -> None:
        await self.locked(workers.signal, signals)

    async def signals(self, worker: str) -> list[Signal]:
        return await self.locked(workers.signals, worker)

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

    async def locked(self, verb: Callable[[Store, *Given], Answer], *args: *Given, insist: bool = False) -> Answer:
        """One verb, alone with the store. Every verb but the waiting ones comes through here. `insist`: `Refused` if
        the store is another one than was opened or rejoined."""
        store = await self._enter()
        with store.lock:
            if insist and store.incarnation != self._incarnation:
                raise Refused(another(self.name, store.incarnation, self._incarnation))
            return verb(store, *args)

    def shared(self) -> Store:
        """The store behind this handle, found or made."""
        return shared_store(self._place, self._cluster, self.name, lambda: Store(self.name, self._clock))

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


def _wrong_url(name: str, url: str) -> str:
    return f"agent {name!r}: {quoted(url)} is no memory transport; expected memory: or memory://place"


def another(agent: str, found: str, expected: str) -> str:
    return (
        f"agent {agent!r}: the store is another one than was opened (incarnation {found}, expected {expected}); "
        "rejoin it, or close and open the agent, to work with it"
    )


def _ended(store: Store, job_id: str) -> bool:
    stone = store.tombstones.get(job_id)
    return job_id not in store.shelf.rows and stone is not None and not stone.moved
