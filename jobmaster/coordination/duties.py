"""Duties: which of them a process runs, each in a loop of its own. The list of all that happens in the background.

Per-agent duties run in every process attached to the agent; cluster duties in every coordinator-capable one. Nothing
is elected: each duty may run in many places at once, and only some work is done in vain then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Protocol

from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import WorkerCard
from jobmaster.coordination.copier import Copier
from jobmaster.coordination.delivery import Delivery
from jobmaster.coordination.handoff import POLL_SECONDS as HANDOFF_SECONDS
from jobmaster.coordination.handoff import HandOff
from jobmaster.coordination.heartbeat import Heartbeat
from jobmaster.coordination.hints import Hints
from jobmaster.coordination.planner import POLL_SECONDS as PLANNER_SECONDS
from jobmaster.coordination.planner import Planner
from jobmaster.coordination.promoter import Promoter
from jobmaster.coordination.pruner import Pruner
from jobmaster.coordination.reaper import Reaper
from jobmaster.coordination.router import OnUnroutable, Router
from jobmaster.coordination.sweeper import Sweeper
from jobmaster.coordination.syncer import POLL_SECONDS as SYNCER_SECONDS
from jobmaster.coordination.syncer import Syncer
from jobmaster.loop import Health, Loop
from jobmaster.model.errors import StoreError
from jobmaster.store_time import StoreTime

MINUTE = 60.0


class Rhythm(Protocol):
    """The settings that duties go by; seconds."""

    @property
    def lease_ttl(self) -> float: ...
    @property
    def lease_margin(self) -> float: ...
    @property
    def worker_heartbeat(self) -> float: ...
    @property
    def worker_dead_after(self) -> float: ...
    @property
    def transient_threshold(self) -> float: ...
    @property
    def audit_lag(self) -> float: ...
    @property
    def retention_days(self) -> float | None: ...


class Crew(Protocol):
    """What duties ask about the workers of their process."""

    def cards(self, agent: str) -> list[WorkerCard]:
        """Of those attached to the agent."""
        ...

    def hired(self, worker: str) -> bool:
        """Whether this worker is, or was, of this process."""
        ...


class Duties:
    """All loops of one process. `start` and `stop` once each."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        hints: Mapping[str, Hints],
        rhythm: Rhythm,
        *,
        crew: Crew,
        on_unroutable: Callable[[str], OnUnroutable],
        master_time: StoreTime,
        clock: Clock,
        rng: Random,
        coordinates: bool,
    ) -> None:
        self._master = master
        self._agents = agents
        self._rhythm = rhythm
        self._clock = clock
        self._rng = rng
        self._loops: dict[str, Loop] = {}
        self._syncers: list[Syncer] = []
        self._heartbeats: dict[str, Heartbeat] = {}
        for name in agents:
            self._look_after(name, hints[name], crew, on_unroutable(name))
        if coordinates:
            self._coordinate(master_time)

    def _look_after(self, name: str, hints: Hints, crew: Crew, on_unroutable: OnUnroutable) -> None:
        agent, time, rhythm = self._agents[name], self._agents.time(name), self._rhythm
        shared = self._agents.shares_master(name)
        syncer = Syncer(self._master, agent, time, self._clock, shared=shared, is_mine=crew.hired)
        heartbeat = Heartbeat(self._master, agent, lambda: crew.cards(name), rhythm.worker_heartbeat)
        router = Router(agent, dead_after_us=round(rhythm.worker_dead_after * 1e6), on_unroutable=on_unroutable)
        self._syncers.append(syncer)
        self._heartbeats[name] = heartbeat
        # First, so that nobody judges by a list that lacks this process's own workers.
        self._add(f"heartbeat:{name}", heartbeat.run, idle=rhythm.worker_heartbeat)
        self._add(f"router:{name}", router.run, idle=MINUTE)
        reaper = Reaper(agent, self._clock, rhythm.lease_ttl, rhythm.lease_margin)
        self._add(f"reaper:{name}", reaper.run, idle=reaper.poll_seconds)
        hints.delayed = self._add(f"promoter:{name}", Promoter(agent, time).run).wake
        hints.recorded = self._add(f"syncer:{name}", syncer.run, idle=SYNCER_SECONDS).wake
        if not shared:
            self._add(f"copier:{name}", Copier(self._master, agent, time, self._clock, rhythm.audit_lag).run)

    def _coordinate(self, master_time: StoreTime) -> None:
        rhythm = self._rhythm
        deliveries = {name: Delivery(self._master, self._agents[name], self._clock) for name in self._agents}
        for name, delivery in deliveries.items():
            delivery.wake = self._add(f"delivery:{name}", delivery.run, idle=MINUTE).wake
        handoff = HandOff(
            self._master,
            self._agents,
            deliveries,
            master_time=master_time,
            threshold_us=round(rhythm.transient_threshold * 1e6),
            rng=self._rng,
        )
        planner = Planner(
            self._master,
            self._agents,
            deliveries,
            master_time=master_time,
            clock=self._clock,
            rng=self._rng,
            pause_seconds=rhythm.lease_ttl,
        )
        self._add("handoff", handoff.run, idle=HANDOFF_SECONDS)
        self._add("planner", planner.run, idle=PLANNER_SECONDS)
        self._add("sweeper", Sweeper(self._master, self._agents).run, idle=MINUTE)
        self._add("pruner", Pruner(self._master, self._agents, master_time, rhythm.retention_days).run, idle=MINUTE)

    def _add(self, name: str, duty: Callable[[], Awaitable[float]], idle: float = 1.0) -> Loop:
        loop = self._loops[name] = Loop(name, duty, clock=self._clock, rng=self._rng, idle=idle)
        return loop

    @property
    def health(self) -> dict[str, Health]:
        """How each duty is doing, by its name."""
        return {name: loop.health for name, loop in self._loops.items()}

    def start(self) -> None:
        """All of them run from now on."""
        for loop in self._loops.values():
            loop.start()

    async def pass_once(self) -> None:
        """One pass of each, in order, without their loops: for who drives time by hand. Not of the reapers, as leases
        only lapse where time passes by itself."""
        for name, loop in self._loops.items():
            if not name.startswith("reaper:"):
                await loop.pass_once()

    async def stop(self) -> None:
        """None of them runs any more. Tolerates never-started, and twice."""
        await asyncio.gather(*(loop.stop() for loop in self._loops.values()))

    def wake(self, *names: str) -> None:
        """Have these look at once; names this process does not run are passed over."""
        for name in names:
            if name in self._loops:
                self._loops[name].wake()

    async def welcome(self, agent: str, card: WorkerCard) -> None:
        """Make a worker known before it claims, and let the jobs that waited for its handlers become ready."""
        await self._heartbeats[agent].beat(card)
        self.wake(f"router:{agent}")

    async def farewell(self, agent: str, worker: str) -> None:
        """A worker has stopped in order."""
        await self._heartbeats[agent].leave(worker)

    async def sync(self) -> None:
        """Bring over all that the agents have recorded until now, as far as the stores answer."""
        for syncer in self._syncers:
            try:
                while await syncer.sync():
                    continue
            except StoreError:
                # It stays in the outbox for whoever comes next.
                continue
