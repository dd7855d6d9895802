"""Heartbeat: the workers of this process tell their agent, and the master, that they live."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import WorkerCard
from jobmaster.happenings import note
from jobmaster.model.errors import StoreError

_log = structlog.get_logger("jobmaster.heartbeat")


class Heartbeat:
    """Beats for the workers attached to one agent. The master is told as well as it can be: work goes on without it."""

    def __init__(
        self,
        master: MasterStore,
        agent: AgentTransport,
        cards: Callable[[], Iterable[WorkerCard]],
        seconds: float,
    ) -> None:
        self._master = master
        self._agent = agent
        self._cards = cards
        self._seconds = seconds
        self._master_away = False
        self._left: set[str] = set()
        self._turn = asyncio.Lock()

    async def run(self) -> float:
        """One pass."""
        for card in list(self._cards()):
            async with self._turn:
                # One that has left meanwhile must not be entered again.
                if card.id not in self._left:
                    await self.beat(card)
        return self._seconds

    async def beat(self, card: WorkerCard) -> None:
        """Make one worker, or that it lives, known. Raises only for the agent, which is told first: whether a worker
        counts as alive must not depend on a master that answers late."""
        await self._agent.register(card)
        try:
            await self._master.beat(self._agent.name, card)
        except StoreError as error:
            if not self._master_away:
                _log.warning("heartbeat.master_away", worker=card.id, error=str(error))
            self._master_away = True
        else:
            self._master_away = False

    async def join(self, card: WorkerCard) -> None:
        """A worker begins: as `beat`, and kept in the history of the topology."""
        await self.beat(card)
        told = {"agent": self._agent.name, "lanes": card.lanes, "slots": card.slots, "version": card.version}
        await note(self._master, "worker.joined", card.id, told)

    async def leave(self, worker: str) -> None:
        """One worker has stopped in order. Raises nothing: who is not taken off the lists ages there."""
        await note(self._master, "worker.left", worker, {"agent": self._agent.name})
        self._left.add(worker)
        async with self._turn:
            await self._take_off(worker)

    async def _take_off(self, worker: str) -> None:
        for farewell in (self._agent.deregister, self._master.leave):
            try:
                await farewell(worker)
            except StoreError as error:
                _log.info("heartbeat.not_taken_off", worker=worker, error=str(error))
