"""Topology: what a cluster is made of, who changed it and when; and taking its agents out and in again.

What an operator decides is written to the master, with his name, and to the agent's store, where it holds without the
master. Both writes may be repeated; a coordinator does what follows from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from jobmaster.actor import this_process
from jobmaster.agents_open import Agents
from jobmaster.client.times import from_us
from jobmaster.contracts.entries import LEAVING, SHUNNED, AgentEntry, AgentState, Event
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Control, ControlKind, StoreMode, WorkerCard
from jobmaster.coordination.drainer import Remains, remains
from jobmaster.model.errors import JobMasterError, NameInvalid, OptionInvalid, StoreError
from jobmaster.model.policy import decode_policy

_NOT_DRAINED = frozenset(AgentState) - {AgentState.DRAINED}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStanding:
    """An agent as the master knows it, and what is left on it."""

    name: str
    kind: str
    state: AgentState
    target: str | None
    """Where its jobs go while it leaves; None: to any other."""
    quarantined: str | None
    problem: str | None = None
    """Why it could not be asked what is left there."""
    waiting: int | None = None
    running: int | None = None
    settled: bool | None = None
    """All that ended or left there is known to the master."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyEvent:
    """Something that happened to the topology."""

    id: str
    at: datetime
    kind: str
    subject: str
    who: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerStanding:
    """A handler as the master knows it, whoever has its code."""

    name: str
    lane: str
    agent: str | None
    data_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStanding:
    """A machine with workers, as they told the master."""

    name: str
    workers: tuple[str, ...]
    """Their ids; one that left in order is gone, one that was killed stays for the retention of workers."""
    alive: int
    """How many of them were heard of lately, by the master's clock."""
    agents: tuple[str, ...]
    slots: int
    """Of those alive, as is what follows."""
    busy: int
    rss_bytes: int | None
    """Resident memory of their processes, each counted once; None where one does not say, or none is alive."""
    seen_at: datetime
    """The last heartbeat of any of its workers."""


class Topology:
    """Of one cluster, for one process."""

    def __init__(self, master: MasterStore, agents: Agents, near_us: int, dead_after_us: int) -> None:
        """`near_us`: jobs due within that are handed to agents; `dead_after_us`: who was silent that long is dead."""
        self._dead_after_us = dead_after_us
        self._near_us = near_us
        self._master = master
        self._agents = agents

    async def agents(self) -> tuple[AgentStanding, ...]:
        """All that the master knows, by name. Raises `MasterUnavailable`."""
        return tuple([await self._standing(entry) for entry in await self._master.agents()])

    async def agent(self, name: str) -> AgentStanding:
        """One of them. Raises `NameInvalid` with those there are."""
        return await self._standing(await self._entry(name))

    async def drain(self, name: str, *, to: str | None = None, who: str | None = None) -> AgentStanding:
        """Have all that has not started on an agent move to another one, or to any that stays, and nothing be handed to
        it from now on. Returns at once; coordinators do it, `agent` tells how far they are, and the state is `drained`
        when nothing is left. Raises `NameInvalid`, and `OptionInvalid` where there is no place to go."""
        known = {entry.name: entry for entry in await self._master.agents()}
        self._check(name, known)
        if to is not None:
            self._check(to, known)
            if to == name or known[to].state in SHUNNED:
                raise OptionInvalid("to", to, f"an agent that stays: {_staying(known, name)}")
        elif _staying(known, name) == "(none)":
            raise OptionInvalid("agent", name, "another agent besides it; enter one by starting a process that has it")
        return await self._turn(name, AgentState.DRAINING, to, who)

    async def pause(self, name: str, *, who: str | None = None) -> AgentStanding:
        """Have nothing be claimed on an agent; what runs there ends, and jobs are still placed. Raises `NameInvalid`,
        `AgentUnreachable`, and `JobMasterError` for one that leaves."""
        entry = await self._entry(name)
        _check_present(entry)
        if entry.state in LEAVING:
            raise JobMasterError(f"agent {name!r} is {entry.state}; resume it first, `jobmaster agents resume {name}`")
        await self._agents[name].control(Control(ControlKind.PAUSE))
        return await self._turn(name, AgentState.PAUSED, None, who)

    async def resume(self, name: str, *, who: str | None = None) -> AgentStanding:
        """Have an agent take part again, whether it was paused, drained or decommissioned. What has left it stays where
        it is. Raises `NameInvalid`, `AgentUnreachable`, and `JobMasterError` for one in quarantine."""
        _check_present(await self._entry(name))
        agent = self._agents[name]
        state = await agent.control(Control(ControlKind.STATE))
        if state.mode is StoreMode.QUARANTINED:
            raise JobMasterError(f"agent {name!r} is in quarantine; a coordinator reconciles it and opens it then")
        standing = await self._turn(name, AgentState.OPEN, None, who)
        await agent.control(Control(ControlKind.RESUME))
        return standing

    async def decommission(self, name: str, *, who: str | None = None) -> AgentStanding:
        """Take a drained agent out for good: it may leave the settings of all processes then. Jobs and schedules bound
        to it go on where its jobs went. Raises `NameInvalid`, and `JobMasterError` for one that is not drained."""
        entry = await self._master.turn_agent(
            name, AgentState.RETIRED, (await self._entry(name)).target, who or this_process(), unless=_NOT_DRAINED
        )
        if entry is None or entry.state is not AgentState.RETIRED:
            state = "gone" if entry is None else entry.state
            raise JobMasterError(f"agent {name!r} is {state}, not drained; run `jobmaster agents drain {name}` first")
        return await self._standing(entry)

    async def hosts(self) -> tuple[HostStanding, ...]:
        """The machines that workers of any agent ran on, by name. Raises `MasterUnavailable`."""
        since_us = await self._master.store_now_us() - self._dead_after_us
        found: dict[str, list[tuple[str, WorkerCard]]] = {}
        for agent, card in await self._master.workers():
            found.setdefault(card.host, []).append((agent, card))
        return tuple(_host(name, found[name], since_us) for name in sorted(found))

    async def handlers(self) -> tuple[HandlerStanding, ...]:
        """All that any process has made known, by name. Raises `MasterUnavailable`."""
        return tuple(
            HandlerStanding(
                name=entry.name,
                lane=entry.lane,
                agent=entry.agent,
                data_version=decode_policy(entry.policy).data_version,
            )
            for entry in await self._master.definitions()
        )

    async def history(
        self, subject: str | None = None, *, before: str | None = None, limit: int = 50
    ) -> tuple[TopologyEvent, ...]:
        """What happened, to one agent, worker or handler or to all, newest first; `before` is the id of an event."""
        return tuple(_shown(event) for event in await self._master.events(subject, before, limit))

    async def _turn(self, name: str, state: AgentState, target: str | None, who: str | None) -> AgentStanding:
        entry = await self._master.turn_agent(name, state, target, who or this_process())
        if entry is None:
            raise NameInvalid("agent", name, "an agent that the master knows")
        return await self._standing(entry)

    async def _entry(self, name: str) -> AgentEntry:
        known = {entry.name: entry for entry in await self._master.agents()}
        self._check(name, known)
        return known[name]

    @staticmethod
    def _check(name: str, known: Mapping[str, AgentEntry]) -> None:
        if name not in known:
            raise NameInvalid("agent", name, f"one that the master knows: {', '.join(known) or '(none)'}")

    async def _standing(self, entry: AgentEntry) -> AgentStanding:
        left: Remains | None = None
        problem: str | None = "it is not in the settings of this process"
        if entry.name in self._agents:
            problem = self._agents.problem(entry.name)
            if problem is None:
                try:
                    left = await remains(self._master, self._agents[entry.name], self._near_us)
                except StoreError as error:
                    problem = str(error)
        return AgentStanding(
            name=entry.name,
            kind=entry.kind,
            state=entry.state,
            target=entry.target,
            quarantined=entry.quarantined,
            problem=problem,
            waiting=None if left is None else left.waiting,
            running=None if left is None else left.running,
            settled=None if left is None else not (left.unsent or left.awaited),
        )


def _check_present(entry: AgentEntry) -> None:
    """One that was given up takes part only after it was reconciled."""
    if entry.state is AgentState.AWAY:
        raise JobMasterError(
            f"agent {entry.name!r} stayed away and its jobs are elsewhere; once it answers, a coordinator reconciles "
            f"and opens it"
        )


def _staying(known: Mapping[str, AgentEntry], besides: str) -> str:
    names = [name for name, entry in known.items() if entry.state not in SHUNNED and name != besides]
    return ", ".join(names) or "(none)"


def _host(name: str, told: Sequence[tuple[str, WorkerCard]], since_us: int) -> HostStanding:
    alive = [card for _, card in told if card.beat_us > since_us]
    memory = {card.pid: card.rss_bytes for card in alive}
    return HostStanding(
        name=name,
        workers=tuple(sorted(card.id for _, card in told)),
        alive=len(alive),
        agents=tuple(sorted({agent for agent, _ in told})),
        slots=sum(card.slots for card in alive),
        busy=sum(card.busy for card in alive),
        rss_bytes=None if not memory or None in memory.values() else sum(rss or 0 for rss in memory.values()),
        seen_at=from_us(max(card.beat_us for _, card in told)),
    )


def _shown(event: Event) -> TopologyEvent:
    return TopologyEvent(
        id=event.id,
        at=from_us(event.at_us),
        kind=event.kind,
        subject=event.subject,
        who=event.who,
        detail={} if event.detail is None else msgspec.json.decode(event.detail),
    )
