"""Starts that must be on record before the handler runs: those of suspects and of `at_most_once` jobs.

They are written in batches, one in flight, so that a lane of `at_most_once` jobs costs one statement per batch too.
"""

import asyncio

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import ExtendAnswer, Extension
from jobmaster.model.errors import StoreError
from jobmaster.worker.keeper import LeaseKeeper
from jobmaster.worker.lease import Ending, Lease

BATCH = 500
RETRY_FIRST = 0.05
RETRY_CAP = 1.0

_log = structlog.get_logger("jobmaster.worker")


class StartRecorder:
    """Asks the store to write starts down."""

    def __init__(self, agent: AgentTransport, keeper: LeaseKeeper, clock: Clock) -> None:
        self._agent = agent
        self._keeper = keeper
        self._clock = clock
        self._wanted: list[tuple[Lease, asyncio.Future[bool]]] = []
        self._task: asyncio.Task[None] | None = None

    async def record(self, lease: Lease) -> bool:
        """True once the store has written this run's start down. False: it must not begin, the lease is gone, or no
        answer came while it could be trusted."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        self._wanted.append((lease, answer))
        if self._task is None:
            self._task = loop.create_task(self._serve(), name="jobmaster:worker.starts")
        return await answer

    async def _serve(self) -> None:
        pause = RETRY_FIRST
        try:
            while self._wanted:
                batch, self._wanted = self._wanted[:BATCH], self._wanted[BATCH:]
                batch = [one for one in batch if self._still_wanted(*one)]
                if batch and not await self._ask(batch):
                    await self._clock.sleep(pause)
                    pause = min(RETRY_CAP, 2 * pause)
        finally:
            self._task = None

    def _still_wanted(self, lease: Lease, answer: "asyncio.Future[bool]") -> bool:
        if answer.done():
            return False
        if lease.ending is None and self._clock.mono() < lease.trust_until:
            return True
        answer.set_result(False)
        return False

    async def _ask(self, batch: list[tuple[Lease, "asyncio.Future[bool]"]]) -> bool:
        """Whether every one of them was answered; the others are wanted again."""
        sent = self._clock.mono()
        try:
            answers = await self._agent.extend(
                [Extension(lease.id, lease.token, started=True) for lease, _ in batch], self._keeper.ttl_us
            )
        except StoreError as error:
            _log.warning("worker.start_not_recorded", jobs=len(batch), error=str(error))
            self._wanted[:0] = batch
            return False
        again = []
        for (lease, answer), said in zip(batch, answers, strict=True):
            if said is ExtendAnswer.BUSY:
                again.append((lease, answer))
                continue
            if said is ExtendAnswer.HELD:
                lease.trust_until = self._keeper.trusted(sent)
            else:
                lease.ending = Ending.CANCELLED if said is ExtendAnswer.CANCELLED else Ending.LOST
            if not answer.done():
                answer.set_result(said is ExtendAnswer.HELD)
        self._wanted[:0] = again
        return not again
