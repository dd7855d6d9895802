"""HandOff: jobs held on the master go to an agent when they are near.

This duty draws the agent and makes the first write, `held → dispatching`, for all agents; `Delivery` does the rest, per
agent. The first write needs no agent, so jobs bound to one that is away do not stay at the head of the queue.
"""

from collections.abc import Mapping
from random import Random

from jobmaster.agents_open import Agents
from jobmaster.contracts.entries import Dispatch
from jobmaster.contracts.master import MasterStore
from jobmaster.coordination.delivery import Delivery
from jobmaster.coordination.drawing import draw_agent, put_deadline_us
from jobmaster.model.job import Job
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
        jobs = await self._master.due(before_us, self._limit)
        moves = [move for job in jobs if (move := await self._move(job)) is not None]
        full = len(jobs) == self._limit
        # A full page of nothing but jobs of agents that this process does not serve: look past them next time.
        self._limit = min(MOST, self._limit * 2) if full and not moves else BATCH
        if not moves:
            return 0 if full and self._limit < MOST else POLL_SECONDS
        placements = await self._master.dispatch(moves)
        failpoint("handoff.dispatching")
        for agent in {move.agent for move in moves}:
            self._deliveries[agent].offer(
                [p for p, move in zip(placements, moves, strict=True) if p is not None and move.agent == agent]
            )
        return 0 if full else POLL_SECONDS

    async def _move(self, job: Job) -> Dispatch | None:
        agent = await draw_agent(self._agents, job.agent, self._rng)
        if agent is None:
            return None
        return Dispatch(job.id, job.version, agent, await put_deadline_us(self._agents, agent))
