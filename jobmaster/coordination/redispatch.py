"""Redispatcher: the jobs of an agent that stays away for too long are placed on others.

Only for agents that ask for it (`redispatch_after`), since it weakens a promise. What has become of a job on an agent
that does not answer nobody can tell: it may run there, or have ended, and is run all the same. What is left of the
promise is the epoch. Each such job gets a higher one, so that nothing the old copy comes to counts on the master; and
when the agent answers again its store is closed and reconciled, as one that was set back, before it takes part: copies
of jobs that are elsewhere go from it, and whoever still runs one can't settle it.

An agent is away when neither this process nor any worker reaches it: a worker's heartbeat gets to the master only after
the agent took it.
"""

import asyncio
from collections.abc import Mapping

import structlog

from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.decisions import policy_of
from jobmaster.contracts.entries import SHUNNED, AgentEntry, AgentState
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Control, ControlKind, OutboxRecord, RecordKind, Revoke, RevokeKind, StoreMode
from jobmaster.coordination.delivery import DISPATCH_US
from jobmaster.model.errors import StoreError
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.telemetry.probes import probe

BATCH = 500
POLL_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""An agent that takes longer to tell the time does not answer."""
HEARD_SECONDS = 3.0
"""From then on nobody hands jobs to an agent that was given up: all look every 2 s which ones are. What is handed to it
before that waits for its dispatcher, half a minute."""
WHY = "it stayed away, and its jobs were placed elsewhere"

_NOT_OPEN = frozenset(AgentState) - {AgentState.OPEN}
_NOT_AWAY = frozenset(AgentState) - {AgentState.AWAY}

_log = structlog.get_logger("jobmaster.redispatch")


class Redispatcher:
    """Looks after those agents of one process that have the setting."""

    def __init__(self, master: MasterStore, agents: Agents, after: Mapping[str, float], clock: Clock, who: str) -> None:
        """`after`: seconds, by agent."""
        self._master = master
        self._agents = agents
        self._after = after
        self._clock = clock
        self._who = who
        self._silent_since: dict[str, float] = {}
        self._away_since: dict[str, float] = {}

    async def run(self) -> float:
        """One pass."""
        known = {entry.name: entry for entry in await self._master.agents()}
        answers = await asyncio.gather(*(self._answers(name) for name in self._after))
        for name, answered in zip(self._after, answers, strict=True):
            entry = known.get(name)
            if answered:
                self._silent_since.pop(name, None)
            else:
                self._silent_since.setdefault(name, self._clock.mono())
            if entry is None:
                continue
            if entry.state is not AgentState.AWAY:
                self._away_since.pop(name, None)
                if not answered and await self._given_up(entry, known):
                    await self._turn_away(entry)
            elif answered:
                await self._let_return(entry)
            else:
                await self._place_elsewhere(name)
        return POLL_SECONDS

    async def _answers(self, name: str) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._agents[name].store_now_us()
        except (StoreError, TimeoutError):
            return False
        return True

    async def _given_up(self, entry: AgentEntry, known: Mapping[str, AgentEntry]) -> bool:
        """Silent for long enough, to everybody, with another agent to go to. One that an operator has paused or drains
        is his."""
        after = self._after[entry.name]
        if entry.state is not AgentState.OPEN or self._clock.mono() - self._silent_since[entry.name] < after:
            return False
        others = (known[name].state for name in self._agents if name not in self._silent_since and name in known)
        if all(state in SHUNNED for state in others):
            return False
        since_us = await self._master.store_now_us() - round(after * 1e6)
        heard = [card for agent, card in await self._master.workers() if agent == entry.name]
        return all(card.beat_us < since_us for card in heard)

    async def _turn_away(self, entry: AgentEntry) -> None:
        turned = await self._master.turn_agent(entry.name, AgentState.AWAY, None, self._who, _NOT_OPEN)
        if turned is not None and turned.state is AgentState.AWAY:
            self._away_since[entry.name] = self._clock.mono()
            _log.error("agent.given_up", agent=entry.name, after=self._after[entry.name], then="its jobs go elsewhere")
            probe("agent_given_up")

    async def _place_elsewhere(self, name: str) -> None:
        """All that the master knows to be there becomes `held` by the record that a revoked job leaves by; the hand-off
        does the rest."""
        now = self._clock.mono()
        seconds = now - self._away_since.setdefault(name, now)
        if seconds < HEARD_SECONDS:
            return
        # Until then a dispatcher may still put, under the epoch it was given, what it has in hand.
        dispatched = seconds > DISPATCH_US / 1e6
        after_id, placed = "", 0
        while page := await self._master.on_agent(name, after_id, BATCH):
            after_id = page[-1].id
            known = await self._master.get([item.id for item in page])
            at_us = await self._master.store_now_us()
            records = [
                OutboxRecord(
                    seq=0,
                    kind=RecordKind.EFFECT,
                    at_us=at_us,
                    job=None,
                    revoked=Revoke(item.id, item.epoch, RevokeKind.MOVE),
                )
                for item, job in zip(page, known, strict=True)
                if job is not None and _may_move(job, dispatched=dispatched)
            ]
            if records:
                await self._master.apply(name, records)
            placed += len(records)
        if placed:
            _log.warning("agent.jobs_elsewhere", agent=name, jobs=placed)

    async def _let_return(self, entry: AgentEntry) -> None:
        """Closed in the store first: whoever dies in between leaves it away, and it is closed once more."""
        agent = self._agents[entry.name]
        report = await agent.probe()
        if report.mode is not StoreMode.QUARANTINED:
            mark = max(report.high_water, entry.high_water)
            await agent.control(Control(ControlKind.QUARANTINE, incarnation=report.incarnation, mark=mark))
            await self._master.note_quarantine(entry.name, WHY)
        await self._master.turn_agent(entry.name, AgentState.OPEN, None, self._who, _NOT_AWAY)
        self._away_since.pop(entry.name, None)
        _log.info("agent.back", agent=entry.name, then="it is reconciled, and open then")


def _may_move(job: Job, *, dispatched: bool) -> bool:
    if policy_of(job).at_most_once or job.terminal:
        return False
    return dispatched or job.state is not JobState.DISPATCHING
