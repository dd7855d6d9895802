"""NatsAgent: the transport that keeps its jobs in NATS JetStream, for any number of processes anywhere.

Three streams an agent: JOBS holds a parcel for every job that waits or runs, OUT what became of them, CTL the store's
own settings and the holds. A job's outcome subject is at once its fence, its tombstone and its line in the outbox:
every step of a job is a record there, written by compare-and-set on the last one, and only then is its parcel moved.

Where to read: `subjects`, `records`, `streams` what is stored · `messages`, `parsing`, `frames`, `connection`, `api`
how it is reached · `reader`, `publisher` the two ways to it · `store` what the verbs share · `putting`, `fetching`,
`judging`, `claiming`, `resting`, `leases`, `settling`, `ending`, `parcels` a job's way through · `expiring` what waits
too long, `damaged` what can't be read · `revoking`, `amending`, `reconciling` changes to jobs that wait, by how they
stand (`standing`) · `outbox` and what need not be read back for it (`recall`), `reading`, `census`, `flooring` ·
`workers`, `wakes`, `control` · `opening`, `probing`, `safety`, `monitoring`, `options`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jobmaster.contracts.agent import AgentTransport
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
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster_agents.nats import expiring, opening, probing, pruning
from jobmaster_agents.nats.amending import Amending
from jobmaster_agents.nats.aside import Aside
from jobmaster_agents.nats.census import Census
from jobmaster_agents.nats.claiming import Claiming
from jobmaster_agents.nats.connection import Link
from jobmaster_agents.nats.control import Controlling
from jobmaster_agents.nats.flooring import Flooring
from jobmaster_agents.nats.leases import Leases
from jobmaster_agents.nats.options import Options, servers
from jobmaster_agents.nats.outbox import Outbox
from jobmaster_agents.nats.putting import Putting
from jobmaster_agents.nats.reading import Reading
from jobmaster_agents.nats.reconciling import Reconciling
from jobmaster_agents.nats.revoking import Revoking
from jobmaster_agents.nats.settling import Settling
from jobmaster_agents.nats.store import Shared, Store
from jobmaster_agents.nats.subjects import Subjects
from jobmaster_agents.nats.wakes import Wakes
from jobmaster_agents.nats.workers import Workers


class NatsAgent:
    """`nats://user:password@host:port` or `tls://…`, several with commas between. The verbs do what `AgentTransport`
    says and belong to the event loop that opened the handle; those of its companion to any. Store time is the
    server's clock."""

    traits = Traits(confirm_by_id=False, pushes_wakeups=True, fires_delays=True, parks=False, may_lose=True)

    def __init__(
        self,
        url: str,
        *,
        cluster: str,
        name: str,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self._options = Options(name, options or {})
        self._servers = servers(name, url)
        self._subjects = Subjects(cluster, name)
        self._clock = clock or SystemClock()
        self._shared = Shared()
        self._verbs: Verbs | None = None
        self._companion: Aside | None = None

    async def open(self) -> ProbeReport:
        if self._verbs is None:
            store = self._store()
            await store.link.open()
            try:
                await opening.bring_up(store)
                settings, _ = await store.reader.settings()
                assert settings is not None
                self._shared.incarnation = settings.incarnation
                await store.ask_now_us()
            except BaseException:
                await store.link.close()
                raise
            self._verbs = Verbs(store)
        else:
            await opening.bring_up(self._verbs.store)
        return await self.probe()

    async def close(self) -> None:
        companion, self._companion = self._companion, None
        if companion is not None:
            await companion.close()
        verbs, self._verbs = self._verbs, None
        if verbs is not None:
            await verbs.store.link.close()

    def companion(self) -> AgentTransport:
        if self._companion is None:
            self.verbs  # noqa: B018 - refuses where the handle is not open
            store = self._store()
            other = NatsAgent("nats://companion", cluster="-", name=self.name, clock=self._clock)
            other._verbs = Verbs(store)
            self._companion = Aside(other, store.link)
        return self._companion.agent

    def _store(self) -> Store:
        link = Link(self.name, self._servers, self._options.connecting())
        return Store(self.name, self._subjects, link, self._options, self._clock, self._shared)

    async def probe(self) -> ProbeReport:
        return await probing.probe(self.verbs.store)

    async def rejoin(self, incarnation: str) -> ProbeReport:
        found = (await self.probe()).incarnation
        if found != incarnation:
            raise Refused(f"agent {self.name!r}: the store is incarnation {found}, not {incarnation}; look at it again")
        self._shared.incarnation = incarnation
        return await self.probe()

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        return await self.verbs.putting.put(jobs, put_deadline_us)

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        return await self.verbs.claiming.claim(worker, quotas, handlers, limit, ttl_us)

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        return await self.verbs.leases.extend(items, ttl_us)

    async def settle(self, items: Sequence[Settlement]) -> list[SettleAnswer]:
        answers, _ = await self.verbs.settling.settle(items)
        return answers

    async def release(self, items: Sequence[Release]) -> list[SettleAnswer]:
        answers, outcome = await self.verbs.settling.release(items)
        if outcome.lanes:
            await self.verbs.wakes.ring(outcome.lanes)
        return answers

    async def reap(self, limit: int, dead: frozenset[str] = frozenset(), expired: bool = True) -> ReapReport:
        return await self.verbs.leases.reap(limit, dead, expired)

    async def promote(self, limit: int) -> PromoteReport:
        await self.verbs.flooring.sweep()
        return await expiring.expire(self.verbs.store, limit)

    async def park(self, known: frozenset[str], limit: int) -> ParkReport:
        # Nobody can look for jobs by handler here: a claim that meets one of a handler it lacks sends it round again.
        return ParkReport()

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        return await self.verbs.revoking.revoke(items)

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        return await self.verbs.amending.amend(items)

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        return await self.verbs.revoking.withdraw(lane, limit)

    async def inventory(self, after_id: str, limit: int) -> list[InventoryItem]:
        return await self.verbs.reading.inventory(after_id, limit)

    async def rebase(self, items: Sequence[Rebase]) -> list[bool]:
        return await self.verbs.reconciling.rebase(items)

    async def adopt(self, incarnation: str) -> ProbeReport:
        return await self.verbs.controlling.adopt(incarnation)

    async def find(self, ids: Sequence[str]) -> list[Job | None]:
        return await self.verbs.reading.find(ids)

    async def jobs(self, after_id: str, before_id: str, limit: int, leased_only: bool = False) -> list[Job]:
        return await self.verbs.reading.jobs(after_id, before_id, limit, leased_only)

    async def peek(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        return await self.verbs.reading.peek(where, cursor, limit)

    async def stats(self) -> list[LaneStats]:
        return await self.verbs.reading.stats()

    async def changes(self, limit: int, older_than_us: int = 0) -> list[OutboxRecord]:
        return await self.verbs.outbox.changes(limit, older_than_us)

    async def confirm(self, seqs: Sequence[int]) -> None:
        await self.verbs.outbox.confirm(seqs)

    async def prune(self, limit: int) -> int:
        return await pruning.prune(self.verbs.store, limit)

    async def register(self, card: WorkerCard) -> None:
        await self.verbs.workers.register(card)

    async def deregister(self, worker: str) -> None:
        await self.verbs.workers.deregister(worker)

    async def workers(self) -> list[WorkerCard]:
        return await self.verbs.workers.workers()

    async def store_now_us(self) -> int:
        return await self.verbs.store.ask_now_us()

    async def control(self, change: Control) -> StoreState:
        return await self.verbs.controlling.control(change)

    async def signal(self, signals: Sequence[Signal]) -> None:
        await self.verbs.workers.signal(signals)

    async def signals(self, worker: str) -> list[Signal]:
        return await self.verbs.workers.signals(worker)

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        rest = self.verbs.claiming.resting.left(lanes, self._clock.mono())
        await self.verbs.wakes.wait(lanes, seconds if rest is None else min(seconds, rest))

    async def watch(self, ids: frozenset[str], seconds: float) -> None:
        await self.verbs.wakes.watch(ids, seconds)

    @property
    def is_open(self) -> bool:
        return self._verbs is not None

    @property
    def verbs(self) -> "Verbs":
        if self._verbs is None:
            raise Refused(f"agent {self.name!r} is not open: call open() first")
        return self._verbs


class Verbs:
    """What an open handle works with."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.putting = Putting(store)
        self.workers = Workers(store)
        self.claiming = Claiming(store, self.workers)
        self.leases = Leases(store)
        self.settling = Settling(store)
        self.outbox = Outbox(store)
        self.flooring = Flooring(store)
        census = Census(store)
        self.wakes = Wakes(store)
        self.revoking = Revoking(store, census)
        self.amending = Amending(store)
        self.reading = Reading(store, census)
        self.reconciling = Reconciling(store)
        self.controlling = Controlling(store, self.revoking, self.wakes)
