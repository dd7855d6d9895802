"""Definitions, agents and workers, in memory."""

from collections.abc import Sequence
from itertools import islice

from msgspec.structs import replace

from jobmaster.contracts.entries import AgentEntry, AgentState, DefinitionEntry, Event
from jobmaster.contracts.values import WorkerCard
from jobmaster.master.memory.tables import MemoryPart, Tables
from jobmaster.master.rules import entered, same_store, turned, turning


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

    async def renew_agent(self, known: AgentEntry, entry: AgentEntry) -> AgentEntry:
        with self._rows() as rows:
            stored = rows.agents.get(known.name)
            if stored is not None and not same_store(stored, known):
                return stored
            decided = stored or entry
            rows.agents[entry.name] = renewed = replace(
                entry, quarantined=None, state=decided.state, target=decided.target
            )
            return renewed

    async def note_quarantine(self, name: str, why: str | None) -> None:
        with self._rows() as rows:
            if name in rows.agents:
                rows.agents[name] = replace(rows.agents[name], quarantined=why)

    async def agents(self) -> list[AgentEntry]:
        with self._rows() as rows:
            return [entry for _, entry in sorted(rows.agents.items())]

    async def turn_agent(
        self, name: str, state: AgentState, target: str | None, who: str, unless: frozenset[AgentState] = frozenset()
    ) -> AgentEntry | None:
        with self._rows() as rows:
            known = rows.agents.get(name)
            if known is None:
                return None
            entry = turned(known, state, target, unless)
            if entry is not known:
                rows.agents[name] = entry
                self._record(rows, [turning(entry, who)])
            return entry

    async def record(self, events: Sequence[Event]) -> None:
        with self._rows() as rows:
            self._record(rows, events)

    async def events(self, subject: str | None, before_id: str | None, limit: int) -> list[Event]:
        with self._rows() as rows:
            found = (event for _, event in sorted(rows.events.items(), reverse=True))
            asked = (
                event
                for event in found
                if subject in (None, event.subject) and (before_id is None or event.id < before_id)
            )
            return list(islice(asked, max(limit, 0)))

    def _record(self, rows: Tables, events: Sequence[Event]) -> None:
        for event in events:
            rows.events.setdefault(event.id, replace(event, at_us=self._clock.wall_us()))

    async def beat(self, agent: str, card: WorkerCard) -> None:
        with self._rows() as rows:
            rows.workers[card.id] = (agent, replace(card, beat_us=self._clock.wall_us()))

    async def leave(self, worker: str) -> None:
        with self._rows() as rows:
            rows.workers.pop(worker, None)

    async def workers(self) -> list[tuple[str, WorkerCard]]:
        with self._rows() as rows:
            return [entry for _, entry in sorted(rows.workers.items())]
