"""HandOff: jobs held on the master go to an agent when they are near.

This duty draws agents and makes the first write, `held → dispatching`, for all agents; `Delivery` does the rest, per
agent. The first write needs no agent, so jobs bound to one that is away do not stay at the head of the queue. It is one
transaction that passes over what another coordinator has before it: several share the work, and none does it twice.
"""

from collections import defaultdict
from collections.abc import Mapping
from random import Random

from jobmaster.agents_open import Agents
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.coordination.delivery import Delivery
from jobmaster.coordination.drawing import routes_for
from jobmaster.store_time import StoreTime
from jobmaster.telemetry.failpoints import failpoint

BATCH = 500
MOST = 16_000
POLL_SECONDS = 2.0


class HandOff:
    """Dispatches what is due within the threshold."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        deliveries: Mapping[str, Delivery],
        *,
        master_time: StoreTime,
        threshold_us: int,
        rng: Random,
    ) -> None:
        self._master = master
        self._agents = agents
        self._deliveries = deliveries
        self._master_time = master_time
        self._threshold_us = threshold_us
        self._rng = rng
        self._limit = BATCH

    async def run(self) -> float:
        """One pass."""
        before_us = await self._master_time.fresh_us() + self._threshold_us
        if not await self._master.due(before_us, 1):
            # Mostly so; to look costs a file no turn of its writer.
            return POLL_SECONDS
        found = await self._master.hand_off(before_us, self._limit, await routes_for(self._agents, self._rng))
        full = found.seen == self._limit
        # A full page of nothing but jobs of agents that this process does not serve: look past them next time.
        self._limit = min(MOST, self._limit * 2) if full and not found.placements else BATCH
        if not found.placements:
            return 0 if full and self._limit < MOST else POLL_SECONDS
        failpoint("handoff.dispatching")
        by_agent: defaultdict[str, list[Placement]] = defaultdict(list)
        for placement in found.placements:
            assert placement.job.agent is not None, placement.job.id
            by_agent[placement.job.agent].append(placement)
        for agent, placements in by_agent.items():
            self._deliveries[agent].offer(placements)
        return 0 if full else POLL_SECONDS
