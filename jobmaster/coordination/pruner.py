"""Pruner: what outlived its use is removed: history past its retention, tombstones past their window."""

from jobmaster.agents_open import Agents
from jobmaster.contracts.master import MasterStore
from jobmaster.model.errors import StoreError
from jobmaster.store_time import StoreTime

BATCH = 500
POLL_SECONDS = 60.0
MORE_SECONDS = 0.2
"""Between two full batches, so that pruning never keeps a store from its work."""
DAY_US = 86_400_000_000


class Pruner:
    """Prunes the master and all agents. `retention_days` None keeps history for ever."""

    def __init__(
        self, master: MasterStore, agents: Agents, master_time: StoreTime, retention_days: float | None
    ) -> None:
        self._master = master
        self._agents = agents
        self._master_time = master_time
        self._retention_us = None if retention_days is None else round(retention_days * DAY_US)

    async def run(self) -> float:
        """One pass."""
        more = False
        if self._retention_us is not None:
            before_us = await self._master_time.fresh_us() - self._retention_us
            more = await self._master.prune(before_us, BATCH) >= BATCH
        for name in self._agents:
            try:
                more = await self._agents[name].prune(BATCH) >= BATCH or more
            except StoreError:
                # The agent's own duties say that it is away; the others are pruned all the same.
                continue
        return MORE_SECONDS if more else POLL_SECONDS
