"""The intake: claims what the slots can use, no more, and gives back what waits too long.

One pass claims for every hungry pool. Passes follow a freed slot, a hint of the transport or a poll; behind the hints
the polling is always on, since hints may be lost. A pass that failed is repeated by the loop, with back-off.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.loop import JITTER, Loop
from jobmaster.worker.keeper import LeaseKeeper
from jobmaster.worker.newer import NewerData
from jobmaster.worker.settlement import Settler
from jobmaster.worker.slots import SlotPool

HOLD_SECONDS = 1.0
"""How long a claim may wait here for a slot."""
HOLD_SUSPECT_SECONDS = 5.0
"""Suspects run one at a time: giving them back every second would only have them claimed again."""
SATURATION_SECONDS = 0.25
"""Shorter saturations are how a busy worker breathes."""
IDLE_SECONDS = 3_600.0
SHORTEST_PAUSE = 0.01


class Intake:
    """The one fetcher of a worker."""

    def __init__(
        self,
        worker_id: str,
        pools: Sequence[SlotPool],
        *,
        agent: AgentTransport,
        newer: NewerData,
        keeper: LeaseKeeper,
        settler: Settler,
        saturated: Callable[[float], None],
        poll_seconds: float,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._worker_id = worker_id
        self._pools = pools
        self._agent = agent
        self._newer = newer
        self._keeper = keeper
        self._settler = settler
        self._saturated = saturated
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._rng = rng
        self._lanes = frozenset(lane for pool in pools for lane in pool.lanes)
        self._hints = 0
        self._quiet = False
        self._stopping: asyncio.Future[None] | None = None
        self._claims = Loop("worker.intake", self._pass, clock=clock, rng=rng, idle=IDLE_SECONDS)
        self._hearing = Loop("worker.hearing", self._hear, clock=clock, rng=rng)

    def start(self) -> None:
        """Claim from now on."""
        self._stopping = asyncio.get_running_loop().create_future()
        self._claims.start()
        self._hearing.start()

    async def stop(self) -> None:
        """No claim is under way any more and none will be. Claims that wait stay where they are."""
        self._quiet = True
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)
        await self._hearing.stop()
        await self._claims.stop()

    def quiet(self) -> None:
        """Claim nothing until `resume`."""
        self._quiet = True

    def resume(self) -> None:
        self._quiet = False
        self.look()

    @property
    def is_quiet(self) -> bool:
        return self._quiet

    def look(self) -> None:
        """There may be new jobs: claim if there is room."""
        self._hints += 1
        for pool in self._pools:
            pool.starved = False
        self._claims.wake()

    def wake_if_hungry(self, pool: SlotPool) -> None:
        """A slot came back."""
        if pool.hungry and not pool.starved and not self._quiet:
            self._claims.wake()

    async def _pass(self) -> float:
        now = self._clock.mono()
        self._give_back(now)
        if not self._settler.returning:
            await self._newer.put_off()
        for pool in self._pools:
            pool.measure(now)
            if pool.suspects:
                # Another worker of this process may have left the gate, and would not know whom to tell.
                pool.fill()
            if self._quiet or self._settler.congested:
                break
            room = pool.room - self._settler.returning
            if pool.hungry and not pool.starved and room > 0:
                await self._claim(pool, room)
            seconds = pool.saturation(self._clock.mono())
            if seconds is not None and seconds >= SATURATION_SECONDS:
                self._saturated(seconds)
        return self._until_next_return()

    async def _claim(self, pool: SlotPool, limit: int) -> None:
        hints, sent = self._hints, self._clock.mono()
        quotas = pool.quotas(limit)
        jobs = await self._agent.claim(self._worker_id, quotas, self._newer.claimable(), limit, self._keeper.ttl_us)
        got = Counter(job.lane for job in jobs) if len(quotas) > 1 else {next(iter(quotas)): len(jobs)}
        pool.claimed(quotas, got, self._clock.mono() - sent)
        if not jobs and not pool.starved:
            # A claim too small for all lanes: the others are asked now, not at the next poll.
            self._claims.wake()
        if hints != self._hints:
            # Something came while the store was looking: it may have come behind its back.
            pool.starved = False
            self._claims.wake()
        pool.add(self._keeper.hold(jobs, sent))

    def _give_back(self, now: float) -> None:
        for pool in self._pools:
            for lease in pool.overdue(now - HOLD_SECONDS, now - HOLD_SUSPECT_SECONDS):
                self._settler.give_back(lease)

    def _until_next_return(self) -> float:
        due = min(pool.next_overdue(HOLD_SECONDS, HOLD_SUSPECT_SECONDS) for pool in self._pools)
        return min(IDLE_SECONDS, self._newer.resumes_in, max(SHORTEST_PAUSE, due - self._clock.mono()))

    async def _hear(self) -> float:
        assert self._stopping is not None
        seconds = self._poll_seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
        hearing = asyncio.ensure_future(self._agent.wait(self._lanes, seconds))
        try:
            await asyncio.wait((hearing, self._stopping), return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                hearing.result()
        finally:
            hearing.cancel()
        if not self._quiet:
            self.look()
        return 0.0
