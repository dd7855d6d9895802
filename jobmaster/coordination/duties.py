"""Duties: which of them a process runs, each in a loop of its own. The list of all that happens in the background.

Per-agent duties run in every process attached to the agent; cluster duties in every coordinator-capable one. Nothing
relies on an election: each duty may run in many places at once, and only some work is done in vain then.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from random import Random
from socket import gethostname
from types import MappingProxyType
from typing import Protocol

from jobmaster.actor import this_process
from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import WorkerCard
from jobmaster.coordination.ageing import POLL_SECONDS as AGEING_SECONDS
from jobmaster.coordination.ageing import Ageing
from jobmaster.coordination.copier import Copier
from jobmaster.coordination.delivery import Delivery
from jobmaster.coordination.drainer import IDLE_SECONDS as DRAINER_SECONDS
from jobmaster.coordination.drainer import Drainer
from jobmaster.coordination.handoff import POLL_SECONDS as HANDOFF_SECONDS
from jobmaster.coordination.handoff import HandOff
from jobmaster.coordination.heartbeat import Heartbeat
from jobmaster.coordination.hints import Hints
from jobmaster.coordination.operator import POLL_SECONDS as OPERATOR_SECONDS
from jobmaster.coordination.operator import Deeds, Operator
from jobmaster.coordination.planner import POLL_SECONDS as PLANNER_SECONDS
from jobmaster.coordination.planner import Planner
from jobmaster.coordination.promoter import Promoter
from jobmaster.coordination.pruner import Pruner
from jobmaster.coordination.reaper import Reaper
from jobmaster.coordination.reconciler import POLL_SECONDS as RECONCILER_SECONDS
from jobmaster.coordination.reconciler import Reconciler
from jobmaster.coordination.redispatch import POLL_SECONDS as REDISPATCH_SECONDS
from jobmaster.coordination.redispatch import Redispatcher
from jobmaster.coordination.retention import Rule
from jobmaster.coordination.retirement import POLL_SECONDS as RETIREMENT_SECONDS
from jobmaster.coordination.retirement import Retirement
from jobmaster.coordination.router import OnUnroutable, Router
from jobmaster.coordination.seeker import PASS_SECONDS as SEEKER_SECONDS
from jobmaster.coordination.seeker import Seeker
from jobmaster.coordination.sentry import POLL_SECONDS as SENTRY_SECONDS
from jobmaster.coordination.sentry import Sentry
from jobmaster.coordination.sweeper import Sweeper
from jobmaster.coordination.syncer import POLL_SECONDS as SYNCER_SECONDS
from jobmaster.coordination.syncer import Syncer
from jobmaster.coordination.watch import POLL_SECONDS as WATCH_SECONDS
from jobmaster.coordination.watch import Watch
from jobmaster.loop import Health, Loop
from jobmaster.model.errors import StoreError
from jobmaster.model.ids import new_id
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
    def plan_ahead(self) -> float: ...
    @property
    def retire_after(self) -> float: ...
    @property
    def starvation_after(self) -> float | None: ...
    @property
    def audit_lag(self) -> float: ...


class Crew(Protocol):
    """What duties ask about the workers of their process."""

    def cards(self, agent: str) -> list[WorkerCard]:
        """Of those attached to the agent."""
        ...

    def hired(self, worker: str) -> bool:
        """Whether this worker is, or was, of this process."""
        ...

    def wake(self, agent: str) -> None:
        """Those attached to the agent: there may be jobs."""
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
        on_quarantined: Callable[[str, str], None],
        master_time: StoreTime,
        clock: Clock,
        rng: Random,
        coordinates: bool,
        profiles: Sequence[str] = (),
        rules: Sequence[Rule] = (),
        redispatch_after: Mapping[str, float] = MappingProxyType({}),
        deeds: Deeds,
    ) -> None:
        self._master = master
        self._agents = agents
        self._rhythm = rhythm
        self._clock = clock
        self._rng = rng
        self._loops: dict[str, Loop] = {}
        self._rules = rules
        self._redispatch_after = redispatch_after
        self._running = False
        self._deliveries: dict[str, Delivery] = {}
        self._syncers: list[Syncer] = []
        self._heartbeats: dict[str, Heartbeat] = {}
        self._sentries: dict[str, Sentry] = {}
        for name in agents:
            self._look_after(name, hints[name], crew, on_unroutable(name))
            if agents[name].traits.restartable:
                self._guard(name, hints[name], crew, partial(on_quarantined, name))
        self._planner: Planner | None = None
        if coordinates:
            self._coordinate(master_time, deeds)
        if coordinates or profiles:
            retirement = Retirement(master, agents, profiles, round(rhythm.retire_after * 1e6))
            self._add("retirement", retirement.run, idle=RETIREMENT_SECONDS)

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
        reaper = Reaper(agent, time, self._clock, rhythm.lease_ttl, rhythm.lease_margin, partial(crew.wake, name))
        self._add(f"reaper:{name}", reaper.run, idle=reaper.poll_seconds)
        hints.delayed = self._add(f"promoter:{name}", Promoter(agent, time).run).wake
        hints.recorded = self._add(f"syncer:{name}", syncer.run, idle=SYNCER_SECONDS).wake
        if not shared:
            self._add(f"copier:{name}", Copier(self._master, agent, time, self._clock, rhythm.audit_lag).run)

    def _guard(self, name: str, hints: Hints, crew: Crew, on_quarantined: Callable[[str], None]) -> None:
        sentry = self._sentries[name] = Sentry(self._master, self._agents[name])
        hints.recheck = sentry.recheck
        hints.troubled = self._add(f"sentry:{name}", sentry.run, idle=SENTRY_SECONDS).wake

        def closed(reason: str) -> None:
            self.wake(f"reconciler:{name}")
            on_quarantined(reason)

        def opened() -> None:
            self.wake(f"syncer:{name}", "handoff")
            crew.wake(name)

        sentry.on_quarantined, sentry.on_open = closed, opened

    def _coordinate(self, master_time: StoreTime, deeds: Deeds) -> None:
        rhythm = self._rhythm
        self._deliveries = deliveries = {
            name: Delivery(
                self._master,
                self._agents[name],
                self._clock,
                partial(self._leaves, name),
                partial(self._agents.refused, name),
            )
            for name in self._agents
        }
        # First, so that nothing is handed to an agent that leaves.
        self._add("watch", Watch(self._master, self._agents).run, idle=WATCH_SECONDS)
        near_us = round(rhythm.transient_threshold * 1e6)
        for name in self._agents:
            if rhythm.starvation_after is not None:
                ageing = Ageing(self._agents[name], round(rhythm.starvation_after * 1e6))
                self._add(f"ageing:{name}", ageing.run, idle=AGEING_SECONDS)
        for name in self._agents:
            drainer = Drainer(self._master, self._agents[name], near_us, this_process())
            self._add(f"drainer:{name}", drainer.run, idle=DRAINER_SECONDS)
        for name, delivery in deliveries.items():
            delivery.wake = self._add(f"delivery:{name}", delivery.run, idle=MINUTE).wake
        for name in self._sentries:
            reconciler = Reconciler(self._master, self._agents[name])
            self._add(f"reconciler:{name}", reconciler.run, idle=RECONCILER_SECONDS)
            if self._agents[name].traits.may_lose:
                seeker = Seeker(self._master, self._agents[name], self._clock)
                self._add(f"seeker:{name}", seeker.run, idle=SEEKER_SECONDS)
        handoff = HandOff(
            self._master,
            self._agents,
            deliveries,
            master_time=master_time,
            threshold_us=near_us,
            rng=self._rng,
        )
        # Random as well: containers may share host name and pid.
        node = f"{gethostname()}:{os.getpid()}:{new_id()[-12:]}"
        planner = self._planner = Planner(
            self._master,
            self._agents,
            deliveries,
            clock=self._clock,
            rng=self._rng,
            pause_seconds=rhythm.lease_ttl,
            ahead_us=round(rhythm.plan_ahead * 1e6),
            node=node if self._master.remote else None,
        )
        operator = Operator(self._master, deeds, master_time=master_time, node=node, clock=self._clock)
        self._add("operator", operator.run, idle=OPERATOR_SECONDS)
        self._add("handoff", handoff.run, idle=HANDOFF_SECONDS)
        self._add("planner", planner.run, idle=PLANNER_SECONDS)
        # Those that can be reconciled when they are back. One duty for all, as one that was never open has none.
        after = {name: seconds for name, seconds in self._redispatch_after.items() if name in self._sentries}
        if after:
            redispatcher = Redispatcher(self._master, self._agents, after, self._clock, this_process())
            self._add("redispatcher", redispatcher.run, idle=REDISPATCH_SECONDS)
        self._add("sweeper", Sweeper(self._master, self._agents).run, idle=MINUTE)
        self._add("pruner", Pruner(self._master, self._agents, master_time, self._rules).run, idle=MINUTE)

    def _leaves(self, name: str) -> bool:
        return name in self._agents.leaving

    def _add(self, name: str, duty: Callable[[], Awaitable[float]], idle: float = 1.0) -> Loop:
        loop = self._loops[name] = Loop(name, duty, clock=self._clock, rng=self._rng, idle=idle)
        return loop

    @property
    def health(self) -> dict[str, Health]:
        """How each duty is doing, by its name."""
        return {name: loop.health for name, loop in self._loops.items()}

    def start(self) -> None:
        """All of them run from now on; those of an agent that is not open yet once `begin` names it."""
        self._running = True
        for name, loop in self._loops.items():
            _, _, agent = name.partition(":")
            if not agent or self._agents.problem(agent) is None:
                loop.start()

    def begin(self, agent: str) -> None:
        """This agent is open now. Before `start`, and for one whose duties run, nothing happens."""
        if self._running:
            for name, loop in self._loops.items():
                if name.partition(":")[2] == agent and not loop.running:
                    loop.start()

    async def pass_once(self) -> None:
        """One pass of each, in order, without their loops: for who drives time by hand. Not of the reapers, as leases
        only lapse where time passes by itself."""
        for name, loop in self._loops.items():
            if not name.startswith("reaper:"):
                await loop.pass_once()

    async def stop(self) -> None:
        """None of them runs any more. Tolerates never-started, and twice."""
        self._running = False
        await asyncio.gather(*(loop.stop() for loop in self._loops.values()))
        if self._planner is not None:
            await self._planner.close()

    def wake(self, *names: str) -> None:
        """Have these look at once; names this process does not run are passed over."""
        for name in names:
            if name in self._loops:
                self._loops[name].wake()

    def try_again(self) -> None:
        """A store has come back: have all of them look at once, those included that were to wait after a failure."""
        for loop in self._loops.values():
            if loop.running:
                loop.try_again()

    def offer(self, placements: Sequence[Placement]) -> None:
        """Complete these hand-offs of one agent, as soon as it answers. A process that does not coordinate leaves them
        to those that do."""
        for placement in placements[:1]:
            if placement.job.agent in self._deliveries:
                self._deliveries[placement.job.agent].offer(placements)

    async def welcome(self, agent: str, card: WorkerCard) -> None:
        """Make a worker known before it claims, from a store that has been looked at, and let the jobs that waited for
        its handlers become ready."""
        if agent in self._sentries:
            await self._sentries[agent].begin()
        await self._heartbeats[agent].join(card)
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
        for sentry in self._sentries.values():
            # What was brought over is beyond the mark that was told last: nobody may set the store back unnoticed.
            with contextlib.suppress(StoreError):
                await sentry.run()
