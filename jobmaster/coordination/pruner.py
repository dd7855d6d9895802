"""Pruner: what outlived its use is removed: history past its retention, tombstones past their window."""

import time
from collections.abc import Sequence

from jobmaster.agents_open import Agents
from jobmaster.contracts.master import MasterStore
from jobmaster.coordination.retention import Rule
from jobmaster.model.errors import StoreError
from jobmaster.store_time import StoreTime

BATCH = 500
SERVER_BATCH = 5_000
"""Where a writer keeps nobody else from writing."""
POLL_SECONDS = 60.0
MORE_SECONDS = 0.2
"""Between two full batches, so that pruning never keeps a store from its work."""
RESTS = 5.0
"""Between two steps of forgetting in parts, which read a whole part, this many times as long as the last one took."""


class Pruner:
    """Prunes the master by rules, and all agents."""

    def __init__(self, master: MasterStore, agents: Agents, master_time: StoreTime, rules: Sequence[Rule]) -> None:
        self._master = master
        self._agents = agents
        self._master_time = master_time
        self._rules = tuple(rules)
        self._batch = SERVER_BATCH if master.remote else BATCH

    async def run(self) -> float:
        """One pass."""
        began = time.monotonic()
        forgotten = await self._master.forget([(rule.which, rule.keep_us) for rule in self._rules])
        took = time.monotonic() - began
        more = forgotten.more
        for rule in self._rules:
            before_us = await self._master_time.fresh_us() - rule.keep_us
            pruned = await self._master.prune(before_us, self._batch, rule.which, forgotten.below)
            more = pruned >= self._batch or more
        for name in self._agents:
            try:
                more = await self._agents[name].prune(BATCH) >= BATCH or more
            except StoreError:
                # The agent's own duties say that it is away; the others are pruned all the same.
                continue
        rest = max(MORE_SECONDS, RESTS * took if forgotten.more else 0.0)
        return min(rest, POLL_SECONDS) if more else POLL_SECONDS
