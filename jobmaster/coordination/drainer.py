"""Drainer: what has not started on an agent that leaves goes back to the master, and from there to other agents.

The store claims nothing and takes nothing new while it drains; what runs there may end there. Each job leaves by the
same `withdraw` and the same records that any revoked job leaves by, and gets its next epoch with the next hand-off: so
a drain may be repeated, interrupted, and done by several coordinators at once, and every job is on one agent only.
"""

import structlog
from msgspec import Struct

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.entries import LEAVING, AgentEntry, AgentState
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Control, ControlKind, Revoke, RevokeKind, StoreMode
from jobmaster.model.states import TERMINAL
from jobmaster.telemetry.failpoints import failpoint

BATCH = 500
POLL_SECONDS = 1.0
IDLE_SECONDS = 2.0

_NOT_DRAINING = frozenset(AgentState) - {AgentState.DRAINING}

_log = structlog.get_logger("jobmaster.drainer")


class Remains(Struct, frozen=True):
    """What keeps an agent from being drained."""

    waiting: int
    """Jobs there that have not started."""
    running: int
    unsent: bool
    """Its outbox has records that the master has not got."""
    awaited: bool
    """The master believes jobs to be there, or on their way, or holds some that were and are due soon."""

    @property
    def nothing(self) -> bool:
        return not (self.waiting or self.running or self.unsent or self.awaited)


async def remains(master: MasterStore, agent: AgentTransport, near_us: int) -> Remains:
    """What is left on an agent. Asked in the order in which jobs leave, so that none is missed between two answers.
    Jobs due within `near_us` are not done with before they are at another agent."""
    lanes = await agent.stats()
    unsent = bool(await agent.changes(1))
    awaited = bool(await master.on_agent(agent.name, "", 1))
    if not awaited:
        held = await master.due(await master.store_now_us() + near_us, BATCH)
        awaited = any(job.agent == agent.name for job in held)
    return Remains(
        waiting=sum(lane.ready + lane.delayed + lane.parked for lane in lanes),
        running=sum(lane.leased for lane in lanes),
        unsent=unsent,
        awaited=awaited,
    )


class Drainer:
    """Drains one agent, when the master says so."""

    def __init__(self, master: MasterStore, agent: AgentTransport, near_us: int, who: str) -> None:
        self._master = master
        self._agent = agent
        self._near_us = near_us
        self._who = who

    async def run(self) -> float:
        """One pass."""
        entry = await self._entry()
        if entry is None or entry.state not in LEAVING:
            return IDLE_SECONDS
        state = await self._agent.control(Control(ControlKind.STATE))
        if state.mode is StoreMode.QUARANTINED:
            # First it is reconciled; then it is open, and drained.
            return IDLE_SECONDS
        if state.mode is not StoreMode.DRAINING:
            await self._agent.control(Control(ControlKind.DRAIN))
            # Between the two, it may have been taken back in; who did that resumed the store before this.
            entry = await self._entry()
            if entry is not None and entry.state not in LEAVING:
                await self._agent.control(Control(ControlKind.RESUME))
                return IDLE_SECONDS
        failpoint("drain.closed")
        if len(await self._agent.withdraw(None, BATCH)) == BATCH:
            return 0
        failpoint("drain.withdrawn")
        await self._bar_missing()
        if entry is not None and entry.state is AgentState.DRAINING:
            left = await remains(self._master, self._agent, self._near_us)
            if left.nothing:
                await self._master.turn_agent(
                    self._agent.name, AgentState.DRAINED, entry.target, self._who, _NOT_DRAINING
                )
                _log.info("agent.drained", agent=self._agent.name)
            return POLL_SECONDS
        return IDLE_SECONDS

    async def _entry(self) -> AgentEntry | None:
        return next((entry for entry in await self._master.agents() if entry.name == self._agent.name), None)

    async def _bar_missing(self) -> None:
        """What the master believes to be here, and is not, can't come any more: the record of that makes it `held`."""
        page = await self._master.on_agent(self._agent.name, "", BATCH)
        if not page:
            return
        known = await self._master.get([item.id for item in page])
        found = await self._agent.find([item.id for item in page])
        missing = [
            Revoke(item.id, item.epoch, RevokeKind.MOVE)
            for item, job, here in zip(page, known, found, strict=True)
            if here is None and job is not None and job.state not in TERMINAL
        ]
        if missing:
            await self._agent.revoke(missing)
