"""PostgresAgent: the transport that keeps its jobs in a Postgres database, for any number of processes anywhere.

Where to read: `tables` and the migrations what is stored · `connection` how it is reached, and what errors mean ·
`store` what the verbs share · `putting`, `claiming`, `settling` the paths on which thousands of jobs a second travel,
each one statement a batch · `leasing`, `waiting`, `parking`, `revoking`, `reconciling` the others, job by job through
`ledger` · `outbox`, `reading`, `workers`, `control` · `listening`, `notifying` who is told of what · `probing` what a
server must be set to.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import structs

from jobmaster.aside import Aside
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.values import (
    AmendAnswer,
    Amendment,
    Control,
    ControlKind,
    ExtendAnswer,
    Extension,
    HistoryTables,
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
    RevokeKind,
    SettleAnswer,
    Settlement,
    Signal,
    StoreMode,
    StoreState,
    Traits,
    WorkerCard,
)
from jobmaster.model.errors import ConfigurationError, Refused, quoted
from jobmaster.model.job import Job
from jobmaster_agents.postgres import (
    control,
    foreign,
    outbox,
    parking,
    probing,
    reading,
    reconciling,
    revoking,
    waiting,
    workers,
)
from jobmaster_agents.postgres.claiming import Claiming
from jobmaster_agents.postgres.connection import Address, Database
from jobmaster_agents.postgres.leasing import Leasing
from jobmaster_agents.postgres.ledger import Ledger
from jobmaster_agents.postgres.listening import Listening
from jobmaster_agents.postgres.putting import Putting
from jobmaster_agents.postgres.schema import HEAD, check_schema, ensure_schema
from jobmaster_agents.postgres.settling import Settling
from jobmaster_agents.postgres.sparing import Sparing
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.tables import Tables

T = TypeVar("T")

POOL = 10
"""Connections of a handle at most, unless the option `pool` says otherwise."""
COMPANION_POOL = 2
"""Those of the lease keeper's, which share with nobody."""


class PostgresAgent:
    """`postgresql://user:password@host:port/database`. The verbs do what `AgentTransport` says and belong to the event
    loop that opened the handle; those of its companion to any. Store time is the server's clock."""

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
        self._url = url
        self._address = Address(url, name)
        self._tables = Tables(cluster, name)
        self._cluster = cluster
        self._clock = clock or SystemClock()
        self._verbs: Verbs | None = None
        self._companion: Aside | None = None
        self._history: HistoryTables | None = None
        self._stores: list[Store] = []
        """This handle's and its companion's: what one insists on, the other does."""
        self.traits = Traits(
            shared_outbox=self._tables.outbox,
            database_key=self._address.key,
            pushes_wakeups=self._options.pooled is not True,
            transactional_put=True,
            writes_history=True,
            remembers_ends=True,
            keeps_schema=True,
        )

    async def open(self) -> ProbeReport:
        if self._verbs is not None:
            await self._bring_up(self._verbs.store)
        else:
            database = Database(self._address, self.name, size=self._options.pool, pooled=self._options.pooled)
            await database.open()
            try:
                store = Store(self.name, self._tables, database)
                await probing.check(store, accept_unsafe=self._options.accept_unsafe)
                await self._bring_up(store)
                store.incarnation = (await database.read(store.meta)).incarnation
                listening = Listening(store, self._clock)
                try:
                    await listening.start()
                except BaseException:
                    await listening.stop()
                    raise
            except BaseException:
                await database.close()
                raise
            self.traits = structs.replace(self.traits, pushes_wakeups=not database.pooled)
            self._verbs = Verbs(store, listening)
            self._stores = [store]
            if self._history is not None:
                self._verbs.settling.write_history(self._history)
        return await self.probe()

    async def _bring_up(self, store: Store) -> None:
        if self._options.migrate:
            await ensure_schema(store.database, self._tables)
            await store.database.write(lambda connection: reconciling.name_store(store, connection))
        else:
            await check_schema(store.database, self._tables)

    async def close(self) -> None:
        companion, self._companion = self._companion, None
        if companion is not None:
            await companion.close()
        verbs, self._verbs = self._verbs, None
        if verbs is not None:
            await verbs.listening.stop()
            await verbs.store.database.close()

    def companion(self) -> AgentTransport:
        if self._companion is None:
            verbs = self.verbs
            database = Database(self._address, self.name, size=COMPANION_POOL, pooled=verbs.store.database.pooled)
            store = Store(self.name, self._tables, database)
            store.incarnation = verbs.store.incarnation
            self._stores.append(store)
            other = PostgresAgent(self._url, cluster=self._cluster, name=self.name, clock=self._clock)
            # Its own connections and nothing else of its own: who waits, and where lines begin, is this one's.
            other._verbs = Verbs(store, verbs.listening, verbs.claiming)
            self._companion = Aside(other, database)
        return self._companion.agent

    async def probe(self) -> ProbeReport:
        store = self.verbs.store
        await check_schema(store.database, self._tables)
        findings, facts = await probing.probe(store)
        meta = await store.database.read(store.meta)
        return ProbeReport(
            incarnation=meta.incarnation,
            mode=meta.mode,
            high_water=await self._ask(outbox.high_water),
            joined=meta.incarnation == store.incarnation,
            emptied=await self._ask(reconciling.is_emptied),
            findings=findings,
            facts={"kind": "postgresql", "schema": HEAD, **facts},
        )

    async def rejoin(self, incarnation: str) -> ProbeReport:
        found = (await self.probe()).incarnation
        if found != incarnation:
            raise Refused(f"agent {self.name!r}: the store is incarnation {found}, not {incarnation}; look at it again")
        self._join(incarnation)
        return await self.probe()

    def _join(self, incarnation: str) -> None:
        for store in self._stores:
            store.incarnation = incarnation
        self.verbs.claiming.floors.clear()

    def write_history(self, tables: HistoryTables) -> None:
        self._history = tables
        if self._verbs is not None:
            self._verbs.settling.write_history(tables)

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        given = await self.verbs.putting.put(jobs, put_deadline_us)
        self.verbs.arrived({job.lane for job, answer in zip(jobs, given, strict=True) if answer is PutAnswer.STORED})
        return given

    async def put_in(self, connection: Any, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        verbs = self.verbs
        return await foreign.put_in(verbs.putting, verbs.store.database, connection, jobs, put_deadline_us)

    async def settle_in(self, connection: Any, item: Settlement) -> SettleAnswer:
        verbs = self.verbs
        return await foreign.settle_in(verbs.settling, verbs.store.database, connection, item)

    async def hint(self, lanes: frozenset[str]) -> None:
        self.verbs.arrived(set(lanes))

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        return await self.verbs.claiming.claim(worker, quotas, handlers, limit, ttl_us)

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        return await self.verbs.leasing.extend(items, ttl_us)

    async def settle(self, items: Sequence[Settlement]) -> list[SettleAnswer]:
        ended = await self.verbs.settling.settle(items)
        self.verbs.publish(ended.ready)
        self.verbs.gone(ended.gone)
        return ended.answers

    async def release(self, items: Sequence[Release]) -> list[SettleAnswer]:
        ended = await self.verbs.settling.release(items)
        self.verbs.publish(ended.ready)
        self.verbs.gone(ended.gone)
        return ended.answers

    async def reap(self, limit: int, dead: frozenset[str] = frozenset(), expired: bool = True) -> ReapReport:
        report, ledger = await self.verbs.leasing.reap(limit, dead, expired)
        self.verbs.changed(ledger)
        return report

    async def promote(self, limit: int) -> PromoteReport:
        await self.verbs.store.fold()
        report, ledger = await self._do(waiting.promote, limit)
        self.verbs.changed(ledger)
        return report

    async def park(self, known: frozenset[str], limit: int) -> ParkReport:
        if (await self._ask(Store.meta)).mode is StoreMode.QUARANTINED:
            return ParkReport()
        candidates: list[str] = []
        if (heads := self.verbs.heads).due():
            with heads.look():
                candidates = await self._ask(parking.unknown_ready, known, limit)
            if len(candidates) == limit:
                heads.forget()
        report, lanes = await self._do(parking.park, known, limit, candidates)
        self.verbs.publish(lanes)
        hopeless = await self._ask(parking.given_up, known, limit)
        if not hopeless:
            return report
        ledger = await self._do(parking.give_up, known, hopeless)
        self.verbs.gone(ledger.gone)
        return structs.replace(report, failed=len(ledger.gone), more=report.more or len(hopeless) == limit)

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        given, gone = await self._do(revoking.revoke, items)
        self.verbs.gone(gone)
        return given

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        given, lanes = await self._do(waiting.amend, items)
        self.verbs.publish(lanes)
        return given

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        gone = await self._do(waiting.take_waiting, lane, RevokeKind.MOVE, limit)
        self.verbs.gone(gone)
        return gone

    async def inventory(self, after_id: str, limit: int) -> list[InventoryItem]:
        return await self._ask(reading.inventory, after_id, limit)

    async def rebase(self, items: Sequence[Rebase]) -> list[bool]:
        store = self.verbs.store
        done, gone = await store.database.write(
            lambda connection: reconciling.rebase(store, connection, items), after_commit="rebase.after_commit"
        )
        self.verbs.gone(gone)
        return done

    async def adopt(self, incarnation: str) -> ProbeReport:
        store = self.verbs.store
        lanes = await store.database.write(
            lambda connection: reconciling.adopt(store, connection, incarnation), before_commit="adopt.before_commit"
        )
        self._join(incarnation)
        self.verbs.publish(lanes)
        return await self.probe()

    async def find(self, ids: Sequence[str]) -> list[Job | None]:
        # A job leaves its row and enters the outbox in one transaction: both questions are about one state.
        return await self._ask(reading.find, ids, snapshot=True)

    async def jobs(self, after_id: str, before_id: str, limit: int, leased_only: bool = False) -> list[Job]:
        return await self._ask(reading.jobs, after_id, before_id, limit, leased_only)

    async def peek(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        return await self._ask(reading.peek, where, cursor, limit)

    async def stats(self) -> list[LaneStats]:
        return await self.verbs.store.database.read(self.verbs.stats.ask)

    async def changes(self, limit: int, older_than_us: int = 0) -> list[OutboxRecord]:
        return await self._ask(outbox.changes, limit, older_than_us)

    async def confirm(self, seqs: Sequence[int]) -> None:
        await outbox.confirm(self.verbs.store, seqs)

    def remembered(self, limit: int) -> list[OutboxRecord]:
        return self.verbs.settling.remembered.take(limit)

    async def prune(self, limit: int) -> int:
        return await self._do(outbox.prune, limit)

    async def register(self, card: WorkerCard) -> None:
        await self._do(workers.register, card)

    async def deregister(self, worker: str) -> None:
        await self._do(workers.deregister, worker)

    async def workers(self) -> list[WorkerCard]:
        return await self._ask(workers.workers)

    async def store_now_us(self) -> int:
        return await self._ask(Store.now_us)

    async def control(self, change: Control) -> StoreState:
        if change.kind is ControlKind.PURGE_LANE:
            purged = await self._purge(control.lane_of(change))
            change = Control(ControlKind.STATE)
        else:
            purged = 0
        state, lanes = await self._do(control.control, change)
        self.verbs.publish(lanes)
        return StoreState(state.mode, state.paused_lanes, purged)

    async def _purge(self, lane: str) -> int:
        last, purged = "", 0
        while page := await self._do(control.purge_page, lane, last):
            self.verbs.gone(page)
            last = page[-1]
            purged += len(page)
        return purged

    async def signal(self, signals: Sequence[Signal]) -> None:
        await self._do(workers.leave_signals, signals)

    async def signals(self, worker: str) -> list[Signal]:
        # Asked twice a second by whoever holds leases: reading first costs no transaction.
        if not await self._ask(workers.has_signals, worker):
            return []
        return await self._do(workers.take_signals, worker)

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        await self.verbs.listening.wait(lanes, seconds)

    async def watch(self, ids: frozenset[str], seconds: float) -> None:
        await self.verbs.listening.watch(ids, seconds, lambda: self._ask(outbox.any_ended, ids))

    @property
    def verbs(self) -> "Verbs":
        if self._verbs is None:
            raise Refused(f"agent {self.name!r} is not open: call open() first")
        return self._verbs

    async def _ask(self, question: Callable[..., Awaitable[T]], *arguments: Any, snapshot: bool = False) -> T:
        """`question(store, connection, …)`, which changes nothing."""
        store = self.verbs.store
        return await store.database.read(lambda c: question(store, c, *arguments), snapshot=snapshot)

    async def _do(self, change: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """`change(store, connection, …)` in a transaction."""
        store = self.verbs.store
        return await store.database.write(lambda c: change(store, c, *arguments))


class Options:
    """What may stand in the options of an agent. Raises `ConfigurationError` with all that is wrong."""

    def __init__(self, agent: str, given: Mapping[str, Any]) -> None:
        rest = dict(given)
        self.migrate = rest.pop("migrate", True)
        self.accept_unsafe = rest.pop("accept_unsafe", False)
        self.pooled: bool | None = rest.pop("pgbouncer", None)
        self.pool = rest.pop("pool", POOL)
        faults = [
            f"agent {agent!r}: {name}={quoted(value)}; expected true or false"
            for name, value in (
                ("migrate", self.migrate),
                ("accept_unsafe", self.accept_unsafe),
                ("pgbouncer", self.pooled),
            )
            if not isinstance(value, bool) and not (name == "pgbouncer" and value is None)
        ]
        if isinstance(self.pool, bool) or not isinstance(self.pool, int) or not 2 <= self.pool <= 1_000:
            faults.append(f"agent {agent!r}: pool={quoted(self.pool)}; expected a number of connections, 2 to 1,000")
        if rest:
            known = "'migrate', 'accept_unsafe', 'pgbouncer' and 'pool'"
            faults.append(f"agent {agent!r}: unknown options {sorted(rest)}; the Postgres transport has {known}")
        if faults:
            raise ConfigurationError(faults)


class Verbs:
    """What an open handle works with, and whom it tells of what it did."""

    def __init__(self, store: Store, listening: Listening, claiming: Claiming | None = None) -> None:
        self.store = store
        self.listening = listening
        self.putting = Putting(store)
        self.claiming = claiming or Claiming(store, listening.look_again)
        self.settling = Settling(store)
        self.leasing = Leasing(store)
        self.stats = reading.Stats(store)
        self.heads = Sparing()
        """Looks at the heads of all lines for handlers nobody knows."""

    def arrived(self, lanes: set[str]) -> None:
        """These lanes may have new jobs."""
        if lanes:
            self.listening.publish(lanes)

    def publish(self, lanes: set[str]) -> None:
        """These lanes may have ready jobs, some of them in an old place in line."""
        for lane in lanes:
            self.claiming.floors.drop(lane)
        self.arrived(lanes)

    def gone(self, ids: Sequence[str]) -> None:
        """These jobs are here no more."""
        if ids:
            self.listening.gone(ids)

    def changed(self, ledger: Ledger) -> None:
        self.publish(ledger.ready)
        self.gone(ledger.gone)
