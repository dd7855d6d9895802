"""Settlement: outcomes on their way to the store, in batches.

An outcome waits a few milliseconds for others, less if nothing else runs; batches in flight gather the next ones
behind them. A slot is free as soon as its outcome is here, but its lease stays with the keeper until the store has
answered. A call that failed is repeated as it was, same ids, same tokens, until there is an answer: the store
recognises what it has applied already. Listeners hear of an outcome only after the store accepted it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import Release, SettleAnswer, Settlement
from jobmaster.listeners import Listeners
from jobmaster.model.errors import Indeterminate, StoreError
from jobmaster.model.outcome import Outcome
from jobmaster.telemetry.probes import probe
from jobmaster.worker.keeper import LeaseKeeper
from jobmaster.worker.lease import Lease
from jobmaster.worker.records import event_of, release_of, settlement_of

BATCH = 500
DELAY_SECONDS = 0.004
"""How long the first outcome of a batch waits for others while the worker is busy."""
FLIGHTS = 2
"""Batches under way at a time: while the store writes one, the answers of the other are read."""
CONGESTED = 2_000
"""Outcomes not yet answered, beyond which nothing new is claimed."""
RETRY_FIRST = 0.1
RETRY_CAP = 5.0
TRIES_OF_ONE = 3
"""How often an outcome is offered alone when the store can't even be asked about it."""

OnSettled = Callable[[Sequence[Settlement]], None]
Item = TypeVar("Item", Settlement, Release)

_log = structlog.get_logger("jobmaster.worker")


class Settler:
    """Takes outcomes and leases to give back, and sees them through. Lives on the worker's loop."""

    def __init__(
        self,
        *,
        agent: AgentTransport,
        keeper: LeaseKeeper,
        listeners: Listeners,
        host: str,
        on_settled: OnSettled | None,
        on_relief: Callable[[], None],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.relieved = on_relief
        """Called when what stood in the way of claiming is gone: too many outcomes, or leases on their way back."""
        self._agent = agent
        self._keeper = keeper
        self._listeners = listeners
        self._host = host
        self._on_settled = on_settled
        self._clock = clock
        self._rng = rng
        self._outcomes: list[tuple[Lease, Settlement]] = []
        self._returns: list[tuple[Lease, Release]] = []
        self._open = 0
        self.returning = 0
        """Leases on their way back: not run here any more, but not the store's again either."""
        self._flights: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._congested = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def congested(self) -> bool:
        """Whether so many outcomes are unanswered that claiming more would only add to them."""
        return self._congested

    def settle(self, lease: Lease, outcome: Outcome) -> None:
        """Offer a run's outcome to the store."""
        self._outcomes.append((lease, settlement_of(lease, outcome, self._keeper.worker_id, self._host, self._clock)))
        self._added(len(self._outcomes) >= BATCH)

    def give_back(self, lease: Lease) -> None:
        """Return a lease without an outcome: unstarted as it came, or interrupted."""
        lease.done = True
        self.returning += 1
        self._returns.append((lease, release_of(lease, self._keeper.worker_id, self._host)))
        self._added(len(self._returns) >= BATCH)

    def forget(self, lease: Lease) -> None:
        """A lease that is gone: there is nothing to say about it."""
        lease.done = True
        self._keeper.drop(lease)

    def hurry(self) -> None:
        """Nothing else runs: what waits goes out now."""
        if self._outcomes or self._returns:
            self._launch()

    async def drain(self) -> None:
        """Return once everything was answered."""
        while self._open:
            self.hurry()
            await self._quiet.wait()

    async def stop(self) -> None:
        """Give up what is unanswered: those leases will lapse."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for flight in tuple(self._flights):
            flight.cancel()
        if self._flights:
            await asyncio.wait(self._flights)
        if self._open:
            _log.warning("worker.outcomes_given_up", count=self._open, then="their leases lapse and they run again")

    def _added(self, full: bool) -> None:
        self._open += 1
        self._quiet.clear()
        if self._open >= CONGESTED:
            self._congested = True
        if full:
            self._launch()
        elif self._timer is None and len(self._flights) < FLIGHTS:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._launch)

    def _launch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (self._outcomes or self._returns) and len(self._flights) < FLIGHTS:
            if self._outcomes:
                outcomes, self._outcomes = self._outcomes[:BATCH], self._outcomes[BATCH:]
                work = self._fly_outcomes(outcomes)
            else:
                returns, self._returns = self._returns[:BATCH], self._returns[BATCH:]
                work = self._fly_returns(returns)
            flight = asyncio.get_running_loop().create_task(work, name="jobmaster:worker.settlement")
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: "asyncio.Task[None]") -> None:
        self._flights.discard(flight)
        if not flight.cancelled() and (error := flight.exception()) is not None:
            _log.error("worker.settlement_failed", exc_info=error)
        if self._congested and self._open < CONGESTED // 2:
            self._congested = False
            self.relieved()
        if not self._open:
            self._quiet.set()
        elif self._outcomes or self._returns:
            self._launch()

    async def _fly_outcomes(self, batch: list[tuple[Lease, Settlement]]) -> None:
        accepted = []
        for (lease, settlement), answer in await self._until_answered(self._agent.settle, batch):
            self._answered(lease)
            if answer is SettleAnswer.ACCEPTED:
                accepted.append((lease, settlement))
            elif answer is not None:
                probe("late_result")
                _log.warning(
                    "worker.outcome_refused",
                    job_id=lease.id,
                    handler=lease.job.handler,
                    outcome=str(settlement.outcome),
                    answer=str(answer),
                    ending=lease.ending and str(lease.ending),
                )
        for lease, settlement in accepted:
            event = event_of(lease, settlement, self._listeners)
            if event is not None:
                self._listeners.emit(event)
        if accepted and self._on_settled is not None:
            self._on_settled([settlement for _, settlement in accepted])

    async def _fly_returns(self, batch: list[tuple[Lease, Release]]) -> None:
        for (lease, _), _ in await self._until_answered(self._agent.release, batch):
            self.returning -= 1
            self._answered(lease)
        self.relieved()

    def _answered(self, lease: Lease) -> None:
        self._open -= 1
        self._keeper.drop(lease)

    async def _until_answered(
        self,
        verb: Callable[[Sequence[Item]], Awaitable[list[SettleAnswer]]],
        batch: list[tuple[Lease, Item]],
        tries: int = 0,
    ) -> list[tuple[tuple[Lease, Item], SettleAnswer | None]]:
        """Each with its answer; None for one that the transport could not even be asked about."""
        items = [item for _, item in batch]
        pause, doubtful = RETRY_FIRST, False
        while True:
            try:
                answers = await verb(items)
            except StoreError as error:
                doubtful = doubtful or isinstance(error, Indeterminate)
                _log.warning("worker.settle_again", count=len(batch), error=str(error), after_seconds=round(pause, 2))
                await self._clock.sleep(pause * self._rng.uniform(0.75, 1.25))
                pause = min(RETRY_CAP, 2 * pause)
            except Exception as error:
                # Not the store's trouble but one of the items': the others must not wait for it.
                if len(batch) == 1 and tries >= TRIES_OF_ONE:
                    _log.error("worker.outcome_lost", job_id=batch[0][0].id, exc_info=error)
                    return [(batch[0], None)]
                if len(batch) == 1:
                    return await self._until_answered(verb, batch, tries + 1)
                half = len(batch) // 2
                return await self._until_answered(verb, batch[:half]) + await self._until_answered(verb, batch[half:])
            else:
                if doubtful:
                    probe("indeterminate_resolved", len(batch))
                return list(zip(batch, answers, strict=True))
