"""Heartbeat: the workers of this process tell their agent, and the master, that they live."""

from collections.abc import Callable, Iterable

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import WorkerCard
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

    async def run(self) -> float:
        """One pass."""
        for card in list(self._cards()):
            await self.beat(card)
        return self._seconds

    async def beat(self, card: WorkerCard) -> None:
        """Make one worker, or that it lives, known. Raises only for the agent."""
        try:
            await self._master.beat(self._agent.name, card)
        except StoreError as error:
            if not self._master_away:
                _log.warning("heartbeat.master_away", worker=card.id, error=str(error))
            self._master_away = True
        else:
            self._master_away = False
        await self._agent.register(card)

    async def leave(self, worker: str) -> None:
        """One worker has stopped in order. Raises nothing: who is not taken off the lists ages there."""
        for farewell in (self._agent.deregister, self._master.leave):
            try:
                await farewell(worker)
            except StoreError as error:
                _log.info("heartbeat.not_taken_off", worker=worker, error=str(error))
