"""Settlement: outcomes on their way to the store, in batches.

An outcome waits a few milliseconds for others, less if nothing else runs; behind a batch in flight the next one gathers
until it is full or that one has landed. A slot is free as soon as its outcome is here, but its lease stays with the
keeper until the store has answered. A call that failed is repeated as it was, same ids, same tokens, until there is an
answer: the store recognises what it has applied already. Listeners hear of an outcome only after the store accepted it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import structlog

from jobmaster.contracts.agent import AgentTransport, TransactionalTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import Release, SettleAnswer, Settlement
from jobmaster.listeners import JobEvent, Listeners
from jobmaster.model.errors import Indeterminate, LeaseLost, OptionInvalid, StoreError
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
BESIDE_SECONDS = 0.05
"""How long a batch that is not full waits for the one under way: to the store it costs as much as some dozens of
outcomes more, and the time is the store's, not the jobs', whose slots are free."""
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
        # A lease that goes back must be there before the reapers, who wait for a whole one after an outage.
        self._longest_pause = min(RETRY_CAP, keeper.ttl_us / 3e6)
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

    async def settle_in(self, lease: Lease, connection: Any, outcome: Outcome) -> None:
        """Settle inside a transaction of the caller's. Raises `LeaseLost`, or `OptionInvalid` where that can't be."""
        if not self._agent.traits.transactional_put:
            raise OptionInvalid(
                "agent", self._agent.name, "an agent on Postgres: this one takes part in no transaction"
            )
        settlement = settlement_of(lease, outcome, self._keeper.worker_id, self._host, self._clock)
        answer = await cast("TransactionalTransport", self._agent).settle_in(connection, settlement)
        if answer is not SettleAnswer.ACCEPTED:
            raise LeaseLost(lease.id, lease.token)

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
            self._launch(due=True)

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
        else:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None and len(self._flights) < FLIGHTS:
            delay = BESIDE_SECONDS if self._flights else DELAY_SECONDS
            self._timer = asyncio.get_running_loop().call_later(delay, partial(self._launch, due=True))

    def _may_fly(self, due: bool) -> bool:
        waiting = max(len(self._outcomes), len(self._returns))
        return waiting >= (1 if due or not self._flights else BATCH) and len(self._flights) < FLIGHTS

    def _launch(self, *, due: bool = False) -> None:
        """Send what waits, as far as may be; all of it if it is `due`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._may_fly(due):
            if self._outcomes:
                outcomes, self._outcomes = self._outcomes[:BATCH], self._outcomes[BATCH:]
                work = self._fly_outcomes(outcomes)
            else:
                returns, self._returns = self._returns[:BATCH], self._returns[BATCH:]
                work = self._fly_returns(returns)
            flight = asyncio.get_running_loop().create_task(work, name="jobmaster:worker.settlement")
            self._flights.add(flight)
            flight.add_done_callback(self._landed)
        if self._outcomes or self._returns:
            self._set_timer()

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
                self._tell(event_of(lease, settlement, self._listeners, refused=True))
        for lease, settlement in accepted:
            self._tell(event_of(lease, settlement, self._listeners))
        if accepted and self._on_settled is not None:
            self._on_settled([settlement for _, settlement in accepted])

    def _tell(self, event: JobEvent | None) -> None:
        if event is not None:
            self._listeners.emit(event)

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
                pause = min(self._longest_pause, 2 * pause)
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
