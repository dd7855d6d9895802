"""Lanes: what waits where, over all agents; pausing, draining, purging and moving it.

A pause is kept by the agents' stores: it holds for every worker, without the master, and survives restarts.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from jobmaster.actor import this_process
from jobmaster.agents_open import Agents
from jobmaster.bulk import Bulk, OperationInfo
from jobmaster.client.counting import CAP
from jobmaster.contracts.entries import Event
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Control, ControlKind, LaneStats
from jobmaster.model.errors import AgentUnreachable, NameInvalid, OptionInvalid, StoreError
from jobmaster.model.ids import new_id
from jobmaster.model.names import check_name
from jobmaster.model.states import JobState
from jobmaster.scale_hint import ScaleHint, wanted_workers
from jobmaster.workers import WorkerInfo, Workers

POLL_SECONDS = 0.1
SERVING = frozenset({"starting", "running"})
"""States of a worker in which it claims, or is about to."""
ON_MASTER = frozenset({JobState.AWAITING, JobState.HELD, JobState.DISPATCHING})
WAITING = (JobState.AWAITING, JobState.HELD, JobState.DISPATCHING, JobState.QUEUED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOnAgent:
    """A lane's part on one agent."""

    agent: str
    paused: bool
    ready: int
    delayed: int
    running: int
    parked: int
    """Waiting for a worker that knows their handler."""
    oldest_ready: timedelta | None
    workers: int
    """Live ones that serve it and are not quiet."""
    slots: int
    """Theirs; shared with their other lanes."""

    @property
    def unserved(self) -> bool:
        """Jobs wait here, and no live worker serves the lane."""
        return bool(self.unserved_jobs)

    @property
    def unserved_jobs(self) -> int:
        """How many."""
        return 0 if self.workers else self.ready + self.parked


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneInfo:
    """A lane over all agents that answered."""

    name: str
    agents: tuple[LaneOnAgent, ...]
    held: int
    """On the master, not due soon, or not handed over yet."""

    @property
    def paused(self) -> bool:
        """On every agent that answered."""
        return bool(self.agents) and all(part.paused for part in self.agents)

    @property
    def unserved(self) -> bool:
        return any(part.unserved for part in self.agents)

    @property
    def unserved_jobs(self) -> int:
        """Ready ones that no live worker of their agent would take."""
        return sum(part.unserved_jobs for part in self.agents)

    @property
    def running(self) -> int:
        return sum(part.running for part in self.agents)

    @property
    def waiting(self) -> int:
        """On agents, due or not."""
        return sum(part.ready + part.delayed + part.parked for part in self.agents)


class Lanes:
    """`scheduler.lanes`. A lane is one that has or had jobs, is paused, is named by a handler, or that a worker serves:
    any other name raises `NameInvalid`, as it is more likely a slip. An agent that does not answer raises
    `AgentUnreachable`, after the others were told; repeat it then."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        workers: Workers,
        bulk: Bulk,
        named: frozenset[str],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._master = master
        self._agents = agents
        self._workers = workers
        self._bulk = bulk
        self._named = named
        self._sleep = sleep

    async def list(self) -> tuple[LaneInfo, ...]:
        """All of them, by name."""
        stats, _ = await self._agents.ask(self._agents.names, lambda agent: agent.stats())
        states, _ = await self._agents.ask(tuple(stats), lambda agent: agent.control(Control(ControlKind.STATE)))
        cards = [info for info in await self._workers.list() if info.alive and info.state in SERVING]
        held = await self._held()
        names = {lane.lane for lanes in stats.values() for lane in lanes if _anything(lane)}
        names |= {lane for state in states.values() for lane in state.paused_lanes}
        names |= {lane for info in cards for lane in info.lanes} | set(held) | self._named
        return tuple(
            LaneInfo(
                name=name,
                held=held.get(name, 0),
                agents=tuple(
                    self._part(name, agent, stats[agent], states[agent].paused_lanes, cards)
                    for agent in stats
                    if agent in states
                ),
            )
            for name in sorted(names)
        )

    async def get(self, lane: str) -> LaneInfo:
        """One of them."""
        wanted, known = check_name("lane", lane), await self.list()
        for info in known:
            if info.name == wanted:
                return info
        raise NameInvalid("lane", lane, f"one of {', '.join(info.name for info in known) or '(none yet)'}")

    async def scale_hint(
        self,
        lanes: Sequence[str],
        *,
        slots_per_worker: int,
        target_seconds: float = 10.0,
        least: int = 0,
        most: int = 100,
    ) -> ScaleHint:
        """How many workers with that many slots these lanes should have: as many as have slots for what is ready or
        running, but no more than there are while nothing has waited for longer than the target. Raises
        `OptionInvalid`, and `NameInvalid` as above."""
        for option, value, smallest in (
            ("slots_per_worker", slots_per_worker, 1),
            ("least", least, 0),
            ("most", most, least),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
                raise OptionInvalid(option, value, f"a number from {smallest}")
        parts = [(info.name, part) for info in [await self.get(lane) for lane in lanes] for part in info.agents]
        serving = [
            info
            for info in await self._workers.list()
            if info.alive and info.state in SERVING and not set(lanes).isdisjoint(info.lanes)
        ]
        ready, running = (sum(getattr(part, what) for _, part in parts) for what in ("ready", "running"))
        oldest = max((part.oldest_ready.total_seconds() for _, part in parts if part.oldest_ready), default=0.0)
        return ScaleHint(
            lanes=tuple(lanes),
            ready=ready,
            running=running,
            oldest_ready_seconds=oldest,
            workers=len(serving),
            slots=sum(info.slots for info in serving),
            wanted=wanted_workers(
                ready=ready,
                running=running,
                oldest_seconds=oldest,
                workers=len(serving),
                slots_per_worker=slots_per_worker,
                target_seconds=target_seconds,
                least=least,
                most=most,
            ),
        )

    async def pause(self, lane: str, *, agent: str | None = None, who: str | None = None) -> LaneInfo:
        """Have nothing of a lane be claimed, on one agent or on all; jobs are still stored, and what runs ends."""
        await self._control(ControlKind.PAUSE_LANE, lane, agent, "lane.paused", who)
        return await self.get(lane)

    async def resume(self, lane: str, *, agent: str | None = None, who: str | None = None) -> LaneInfo:
        """Have a lane be claimed again."""
        await self._control(ControlKind.RESUME_LANE, lane, agent, "lane.resumed", who)
        return await self.get(lane)

    async def drain(self, lane: str, *, who: str | None = None) -> LaneInfo:
        """Pause a lane and return when nothing of it runs any more; what waits stays until it is resumed."""
        await self._control(ControlKind.PAUSE_LANE, lane, None, "lane.drained", who)
        while (info := await self.get(lane)).running:
            await self._sleep(POLL_SECONDS)
        return info

    async def purge(self, lane: str, *, who: str | None = None) -> OperationInfo:
        """Cancel all that waits in a lane, wherever it is, in the background; what runs is left alone."""
        await self.get(lane)
        return await self._bulk.cancel(lane=lane, state=WAITING, who=who)

    async def move(self, lane: str, to: str, *, who: str | None = None) -> OperationInfo:
        """Put all that waits in a lane into another one, in the background. It stays on its agents. The other lane may
        be a new one: then see that a worker serves it."""
        await self.get(lane)
        return await self._bulk.edit(lane=lane, to_lane=to, who=who)

    async def _control(self, kind: ControlKind, lane: str, agent: str | None, word: str, who: str | None) -> None:
        await self.get(lane)
        if agent is not None:
            names: Sequence[str] = (self._agents[agent].name,)
        else:
            names = self._agents.names
        _, failed = await self._agents.ask(names, lambda each: each.control(Control(kind, lane)))
        for name in names:
            if name not in failed:
                await self._note(word, lane, name, who)
        for name, error in failed.items():
            problem = error.problem if isinstance(error, AgentUnreachable) else str(error)
            raise AgentUnreachable(name, problem, f"lane {lane} is as it was there; repeat this") from error

    async def _note(self, kind: str, lane: str, agent: str, who: str | None) -> None:
        """For the record, as far as the master is there: a pause does without it."""
        detail = f'{{"agent":"{agent}"}}'.encode()
        try:
            event = Event(id=new_id(), kind=kind, subject=lane, who=who or this_process(), detail=detail)
            await self._master.record([event])
        except StoreError:
            return

    async def _held(self) -> dict[str, int]:
        """What the master has of each lane that it has heard of; nothing while it is away."""
        try:
            counts, definitions = await self._master.counts(CAP), await self._master.definitions()
        except StoreError:
            return {}
        held = dict.fromkeys((definition.lane for definition in definitions), 0)
        for entry in counts:
            held[entry.lane] = held.get(entry.lane, 0) + (entry.count if entry.state in ON_MASTER else 0)
        return held

    def _part(
        self, name: str, agent: str, stats: Sequence[LaneStats], paused: frozenset[str], cards: Sequence[WorkerInfo]
    ) -> LaneOnAgent:
        found = next((lane for lane in stats if lane.lane == name), LaneStats(lane=name))
        serving = [info for info in cards if info.agent == agent and name in info.lanes]
        return LaneOnAgent(
            agent=agent,
            paused=name in paused,
            ready=found.ready,
            delayed=found.delayed,
            running=found.leased,
            parked=found.parked,
            oldest_ready=None
            if found.oldest_ready_us is None
            else timedelta(microseconds=max(0, self._agents.time(agent).now_us() - found.oldest_ready_us)),
            workers=len(serving),
            slots=sum(info.slots for info in serving),
        )


def _anything(lane: LaneStats) -> bool:
    return bool(lane.ready + lane.delayed + lane.leased + lane.parked)
