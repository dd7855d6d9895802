"""SqliteAgent: the transport that keeps its jobs in a file, for any number of processes on one host.

Where to read: `tables` and `rows` what is stored · `store` what the verbs share · `putting`, `claiming`, `settling` the
paths on which thousands of jobs a second travel, each a few statements a batch · `leasing`, `waiting`, `reconciling`
the others, job by job through `ledger` · `outbox`, `reading`, `workers` · `schema` and `migrations`.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec import structs

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
    Rebase,
    Release,
    Revocation,
    Revoke,
    RevokeKind,
    SettleAnswer,
    Settlement,
    Signal,
    StoreState,
    Traits,
    WorkerCard,
)
from jobmaster.model.errors import ConfigurationError, Refused, SchemaOutdated, quoted
from jobmaster.model.job import Job
from jobmaster.settling import Ended
from jobmaster.sqlite import check_untouched, open_database, path_of
from jobmaster_agents.sqlite import control, outbox, reading, reconciling, waiting, workers
from jobmaster_agents.sqlite.claiming import Claimed, Claiming
from jobmaster_agents.sqlite.leasing import Leasing
from jobmaster_agents.sqlite.ledger import Ledger
from jobmaster_agents.sqlite.putting import Putting
from jobmaster_agents.sqlite.schema import HEAD, check_schema, ensure_schema
from jobmaster_agents.sqlite.settling import Settling
from jobmaster_agents.sqlite.store import Meta, Store
from jobmaster_agents.sqlite.tables import Tables

T = TypeVar("T")

LOOK_FOR_WORK_SECONDS = 0.1
LOOK_FOR_ENDS_SECONDS = 0.01
"""How often changes by other processes are looked for, while somebody waits for jobs or watches some."""


class SqliteAgent:
    """`sqlite:///file.db`. Handles of one file in a process share one writer; the verbs do what `AgentTransport` says
    and may be awaited on any event loop. Store time is the clock given."""

    def __init__(
        self,
        url: str,
        *,
        cluster: str,
        name: str,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        given = dict(options or {})
        self._migrate = given.pop("migrate", True)
        if given:
            raise ConfigurationError(
                [f"agent {name!r}: unknown options {sorted(given)}; the SQLite transport has only 'migrate'"]
            )
        if not isinstance(self._migrate, bool):
            raise ConfigurationError([f"agent {name!r}: migrate={quoted(self._migrate)}; expected true or false"])
        self.name = name
        self._path = path_of(url)
        self._tables = Tables(cluster, name)
        self._clock = clock or SystemClock()
        self._verbs: Verbs | None = None
        self._heard: dict[frozenset[str], int] = {}
        self.traits = Traits(
            shared_outbox=self._tables.outbox,
            database_key=f"sqlite:{self._path}",
            virtual_time=True,
            keeps_schema=True,
        )

    async def open(self) -> ProbeReport:
        if self._verbs is not None:
            await self._bring_up(self._verbs.store)
        else:
            if not self._migrate and not await asyncio.to_thread(check_untouched, self._path):
                raise SchemaOutdated(self._path, None, HEAD)
            database = await asyncio.to_thread(open_database, self._path)
            try:
                # Handles of one process share one store time, whoever's clock is wrong.
                database.clock = database.clock or self._clock
                store = Store(self.name, self._tables, database.clock, database)
                await self._bring_up(store)
                generation = database.generation
                store.join((await database.read(store.meta)).incarnation, generation)
            except BaseException:
                await asyncio.to_thread(database.close)
                raise
            self._verbs = Verbs(store)
        return await self.probe()

    async def _bring_up(self, store: Store) -> None:
        if self._migrate:
            await store.database.write(lambda connection: ensure_schema(connection, self._tables, self._path))
        else:
            await store.database.read(lambda connection: check_schema(connection, self._tables, self._path))

    async def close(self) -> None:
        verbs, self._verbs = self._verbs, None
        if verbs is not None:
            await asyncio.to_thread(verbs.store.database.close)

    def companion(self) -> "SqliteAgent":
        return self

    async def probe(self) -> ProbeReport:
        store = self.verbs.store

        def look(connection: sqlite3.Connection) -> tuple[Meta, int, bool]:
            check_schema(connection, self._tables, self._path)
            return (
                store.meta(connection),
                outbox.high_water(store, connection),
                reconciling.is_emptied(store, connection),
            )

        meta, high_water, emptied = await store.database.read(look)
        return ProbeReport(
            incarnation=meta.incarnation,
            mode=meta.mode,
            high_water=high_water,
            joined=meta.incarnation == store.incarnation,
            emptied=emptied,
            findings=store.database.findings(),
            facts={"kind": "sqlite", "schema": HEAD, **store.database.facts()},
        )

    async def rejoin(self, incarnation: str) -> ProbeReport:
        store = self.verbs.store
        generation = store.database.generation
        found = (await self.probe()).incarnation
        if found != incarnation:
            raise Refused(f"agent {self.name!r}: the store is incarnation {found}, not {incarnation}; look at it again")
        store.join(incarnation, generation)
        return await self.probe()

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        verbs = self.verbs
        lanes = {job.lane for job in jobs}
        return await verbs.store.database.write(
            lambda connection: verbs.putting.put(connection, jobs, put_deadline_us),
            before_commit="enqueue.before_commit",
            after_commit="enqueue.after_commit",
            then=lambda _: verbs.publish(lanes),
        )

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        verbs = self.verbs

        def then(claimed: Claimed) -> None:
            verbs.gone(claimed.gone)

        claimed = await verbs.store.database.write(
            lambda connection: verbs.claiming.claim(connection, worker, quotas, handlers, limit, ttl_us),
            after_commit="claim.after_commit",
            then=then,
        )
        if not claimed.packed:
            return []
        jobs = verbs.claiming.read(claimed, worker)
        if jobs is None:
            jobs = await self._read(lambda c: verbs.claiming.read_again(c, claimed))
        return jobs

    async def extend(self, items: Sequence[Extension], ttl_us: int) -> list[ExtendAnswer]:
        verbs = self.verbs
        return await verbs.store.database.write(
            lambda connection: verbs.leasing.extend(connection, items, ttl_us), after_commit="extend.after_commit"
        )

    async def settle(self, items: Sequence[Settlement]) -> list[SettleAnswer]:
        verbs = self.verbs
        batch = verbs.settling.prepare(items)
        ended = await verbs.store.database.write(
            lambda connection: verbs.settling.settle(connection, batch),
            before_commit="settle.before_commit",
            after_commit="settle.after_commit",
            then=verbs.ended,
        )
        return ended.answers

    async def release(self, items: Sequence[Release]) -> list[SettleAnswer]:
        verbs = self.verbs
        ended = await verbs.store.database.write(
            lambda connection: verbs.leasing.release(connection, items),
            after_commit="release.after_commit",
            then=verbs.ended,
        )
        return ended.answers

    async def reap(self, limit: int, dead: frozenset[str] = frozenset(), expired: bool = True) -> ReapReport:
        verbs = self.verbs
        store = verbs.store
        gone = await self._read(lambda c: workers.dead(store, c))

        def reap(connection: sqlite3.Connection) -> tuple[ReapReport, Ledger]:
            if store.quarantined(connection):
                return ReapReport(), Ledger(store, connection, 0)
            report, ledger = verbs.leasing.reap(connection, limit, dead | gone, expired)
            workers.forget_idle(store, connection, gone)
            return report, ledger

        report, _ = await store.database.write(reap, after_commit="reap.after_commit", then=verbs.changed)
        return report

    async def promote(self, limit: int) -> PromoteReport:
        verbs = self.verbs
        report, _ = await verbs.store.database.write(
            lambda connection: waiting.promote(verbs.store, connection, limit), then=verbs.changed
        )
        return report

    async def park(self, known: frozenset[str], limit: int) -> ParkReport:
        verbs = self.verbs
        if await self._read(verbs.store.quarantined):
            return ParkReport()
        candidates = await self._ask(waiting.unknown_ready, known, limit)
        report, _ = await verbs.store.database.write(
            lambda connection: waiting.park(verbs.store, connection, known, limit, candidates),
            then=lambda done: verbs.publish(done[1]),
        )
        hopeless = await self._ask(waiting.given_up, known, limit)
        if not hopeless:
            return report
        ended = await verbs.store.database.write(
            lambda connection: waiting.give_up(verbs.store, connection, known, hopeless),
            then=lambda ledger: verbs.gone(ledger.gone),
        )
        return structs.replace(report, failed=len(ended.gone), more=report.more or len(hopeless) == limit)

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        verbs = self.verbs
        answers, _ = await verbs.store.database.write(
            lambda connection: waiting.revoke(verbs.store, connection, items), then=lambda done: verbs.gone(done[1])
        )
        return answers

    async def amend(self, items: Sequence[Amendment]) -> list[AmendAnswer]:
        verbs = self.verbs
        answers, _ = await verbs.store.database.write(
            lambda connection: waiting.amend(verbs.store, connection, items),
            then=lambda done: verbs.publish(done[1]),
        )
        return answers

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        verbs = self.verbs
        return await verbs.store.database.write(
            lambda connection: waiting.take_waiting(verbs.store, connection, lane, RevokeKind.MOVE, limit),
            then=verbs.gone,
        )

    async def inventory(self, after_id: str, limit: int) -> list[InventoryItem]:
        return await self._ask(reading.inventory, after_id, limit)

    async def rebase(self, items: Sequence[Rebase]) -> list[bool]:
        verbs = self.verbs
        done, _ = await verbs.store.database.write(
            lambda connection: reconciling.rebase(verbs.store, connection, items),
            after_commit="rebase.after_commit",
            then=lambda done: verbs.gone(done[1]),
        )
        return done

    async def adopt(self, incarnation: str) -> ProbeReport:
        verbs = self.verbs
        store = verbs.store
        generation = store.database.generation
        await store.database.write(
            lambda connection: reconciling.adopt(store, connection, incarnation),
            before_commit="adopt.before_commit",
            then=verbs.publish,
        )
        store.join(incarnation, generation)
        return await self.probe()

    async def find(self, ids: Sequence[str]) -> list[Job | None]:
        return await self._ask(reading.find, ids)

    async def jobs(self, after_id: str, before_id: str, limit: int, leased_only: bool = False) -> list[Job]:
        return await self._ask(reading.jobs, after_id, before_id, limit, leased_only)

    async def peek(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        return await self._ask(reading.peek, where, cursor, limit)

    async def stats(self) -> list[LaneStats]:
        return await self._ask(reading.stats)

    async def changes(self, limit: int, older_than_us: int = 0) -> list[OutboxRecord]:
        return await self._ask(outbox.changes, limit, older_than_us)

    async def confirm(self, seqs: Sequence[int]) -> None:
        await self._do(outbox.confirm, seqs)

    async def prune(self, limit: int) -> int:
        return await self._do(outbox.prune, limit)

    async def register(self, card: WorkerCard) -> None:
        await self._do(workers.register, card)

    async def deregister(self, worker: str) -> None:
        await self._do(workers.deregister, worker)

    async def workers(self) -> list[WorkerCard]:
        return await self._ask(workers.workers)

    async def store_now_us(self) -> int:
        return self.verbs.store.now_us()

    async def control(self, change: Control) -> StoreState:
        verbs = self.verbs
        if change.kind is ControlKind.PURGE_LANE:
            purged = await self._purge(control.lane_of(change))
            change = Control(ControlKind.STATE)
        else:
            purged = 0
        state, _ = await verbs.store.database.write(
            lambda connection: control.control(verbs.store, connection, change),
            then=lambda done: verbs.publish(done[1]),
        )
        return StoreState(state.mode, state.paused_lanes, purged)

    async def _purge(self, lane: str) -> int:
        verbs = self.verbs
        last, purged = "", 0
        while page := await verbs.store.database.write(
            partial(control.purge_page, verbs.store, lane=lane, after_id=last), then=verbs.gone
        ):
            last = page[-1]
            purged += len(page)
        return purged

    async def signal(self, signals: Sequence[Signal]) -> None:
        await self._do(workers.leave_signals, signals)

    async def signals(self, worker: str) -> list[Signal]:
        # Asked twice a second by whoever holds leases: reading first costs no writer and no lock.
        if not await self._ask(workers.has_signals, worker):
            return []
        return await self._do(workers.take_signals, worker)

    async def wait(self, lanes: frozenset[str], seconds: float) -> None:
        store = self.verbs.store
        hints = store.database.hints
        topics = frozenset(map(store.lane_topic, lanes))
        seen = self._heard.get(lanes, 0)
        with hints.waiting(topics, LOOK_FOR_WORK_SECONDS) as waiter:
            if hints.count(topics) == seen and seconds > 0:
                await waiter.wait(self._clock.sleep(seconds))
        self._heard[lanes] = hints.count(topics)

    async def watch(self, ids: frozenset[str], seconds: float) -> None:
        if seconds <= 0:
            return
        hints = self.verbs.store.database.hints
        with hints.waiting(ids, LOOK_FOR_ENDS_SECONDS) as waiter:
            if not await self._ask(outbox.any_ended, ids):
                await waiter.wait(self._clock.sleep(seconds))

    @property
    def verbs(self) -> "Verbs":
        if self._verbs is None:
            raise Refused(f"agent {self.name!r} is not open: call open() first")
        return self._verbs

    async def _ask(self, question: Callable[..., T], *arguments: Any) -> T:
        """`question(store, connection, …)` on a connection that can't write."""
        store = self.verbs.store
        return await store.database.read(lambda connection: question(store, connection, *arguments))

    async def _do(self, change: Callable[..., T], *arguments: Any) -> T:
        """`change(store, connection, …)` in the writer's transaction."""
        store = self.verbs.store
        return await store.database.write(lambda connection: change(store, connection, *arguments))

    async def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self.verbs.store.database.read(fn)


class Verbs:
    """What an open handle works with, and whom it tells of what it did, on the writer's thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.putting = Putting(store)
        self.claiming = Claiming(store)
        self.settling = Settling(store)
        self.leasing = Leasing(store)

    def publish(self, lanes: set[str]) -> None:
        """These lanes may have ready jobs."""
        if lanes:
            self.store.database.hints.publish([self.store.lane_topic(lane) for lane in lanes])

    def gone(self, ids: list[str]) -> None:
        """These jobs are here no more."""
        if ids:
            self.store.database.hints.wake(ids)

    def ended(self, ended: Ended) -> None:
        self.publish(ended.ready)
        self.gone(ended.gone)

    def changed(self, done: tuple[object, Ledger]) -> None:
        self.publish(done[1].ready)
        self.gone(done[1].gone)
