"""Definitions, agents and workers, in memory."""

from collections.abc import Sequence

from msgspec.structs import replace

from jobmaster.contracts.entries import AgentEntry, DefinitionEntry
from jobmaster.contracts.values import WorkerCard
from jobmaster.master.memory.tables import MemoryPart
from jobmaster.master.rules import entered


class MemoryTopology(MemoryPart):
    async def define(self, definitions: Sequence[DefinitionEntry]) -> None:
        with self._rows() as rows:
            rows.definitions.update({entry.name: entry for entry in definitions})

    async def definitions(self) -> list[DefinitionEntry]:
        with self._rows() as rows:
            return [entry for _, entry in sorted(rows.definitions.items())]

    async def enter_agent(self, entry: AgentEntry) -> AgentEntry:
        with self._rows() as rows:
            known = rows.agents.get(entry.name)
            rows.agents[entry.name] = entered(known, entry)
            return entry if known is None else known

    async def agents(self) -> list[AgentEntry]:
        with self._rows() as rows:
            return [entry for _, entry in sorted(rows.agents.items())]

    async def beat(self, agent: str, card: WorkerCard) -> None:
        with self._rows() as rows:
            rows.workers[card.id] = (agent, replace(card, beat_us=self._clock.wall_us()))

    async def leave(self, worker: str) -> None:
        with self._rows() as rows:
            rows.workers.pop(worker, None)

    async def workers(self) -> list[tuple[str, WorkerCard]]:
        with self._rows() as rows:
            return [entry for _, entry in sorted(rows.workers.items())]
