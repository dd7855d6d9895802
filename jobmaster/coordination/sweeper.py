"""Sweeper: live rows on the master that a finished job left behind go, and cards of workers long gone."""

from jobmaster.agents_open import Agents
from jobmaster.contracts.master import MasterStore
from jobmaster.happenings import note
from jobmaster.model.errors import StoreError

BATCH = 500
POLL_SECONDS = 60.0
GONE_US = 600_000_000
"""After this long without a heartbeat a worker's card says nothing to anybody, its leases included."""


class Sweeper:
    """Sweeps the master, and the lists of workers."""

    def __init__(self, master: MasterStore, agents: Agents) -> None:
        self._master = master
        self._agents = agents

    async def run(self) -> float:
        """One pass."""
        if await self._master.sweep(BATCH) >= BATCH:
            return 0
        for name in self._agents:
            try:
                await self._forget_workers(name)
            except StoreError:
                # The agent's own duties say that it is away; the others are swept all the same.
                continue
        return POLL_SECONDS

    async def _forget_workers(self, name: str) -> None:
        agent = self._agents[name]
        gone_before_us = await self._agents.time(name).fresh_us() - GONE_US
        for card in await agent.workers():
            if card.beat_us < gone_before_us:
                await agent.deregister(card.id)
                await self._master.leave(card.id)
                await note(self._master, "worker.lost", card.id, {"agent": name})
