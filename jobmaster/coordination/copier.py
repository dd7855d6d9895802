"""Copier: jobs still in flight become visible on the master.

Only for an agent with a database of its own. A job that ends quickly is never copied: its outbox record says it all.
Ids are ordered by time, so the copier pages the primary key up to `audit_lag` ago and needs no flag on any row.
"""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.master import MasterStore
from jobmaster.model.ids import floor_id
from jobmaster.store_time import StoreTime

BATCH = 500
POLL_SECONDS = 1.0
AGAIN_SECONDS = 60.0


class Copier:
    """Copies one agent's jobs: each once, running ones again every 60 s."""

    def __init__(
        self, master: MasterStore, agent: AgentTransport, time: StoreTime, clock: Clock, lag_seconds: float
    ) -> None:
        self._master = master
        self._agent = agent
        self._time = time
        self._clock = clock
        self._lag_us = round(lag_seconds * 1e6)
        self._after_id = ""
        self._again_at = clock.mono() + AGAIN_SECONDS

    async def run(self) -> float:
        """One pass."""
        before_id = floor_id(await self._time.fresh_us() - self._lag_us)
        jobs = await self._agent.jobs(self._after_id, before_id, BATCH)
        if jobs:
            await self._master.copy(self._agent.name, jobs)
            self._after_id = jobs[-1].id
            return 0
        if self._clock.mono() >= self._again_at:
            await self._copy_leased(before_id)
            self._again_at = self._clock.mono() + AGAIN_SECONDS
        return POLL_SECONDS

    async def _copy_leased(self, before_id: str) -> None:
        after_id = ""
        while jobs := await self._agent.jobs(after_id, before_id, BATCH, leased_only=True):
            await self._master.copy(self._agent.name, jobs)
            after_id = jobs[-1].id
