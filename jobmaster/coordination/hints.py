"""Hints: what this process does to an agent wakes the duties that follow from it, so that they may sleep long.

Only hints: other processes' doings wake nobody here, and every duty looks again within a second anyway.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import PutAnswer, Revocation, Revoke, SettleAnswer, Settlement, Signal
from jobmaster.model.errors import AgentUnreachable, Indeterminate, StoreError
from jobmaster.model.job import Job

Answer = TypeVar("Answer")

SOON_US = 1_500_000
"""What is due later than this, a promoter's poll finds in time by itself."""


def _nothing() -> None:
    return


def _nobody(workers: frozenset[str]) -> None:
    return


async def _sure() -> None:
    return


class Hints:
    """Whom to wake; set when the duties start."""

    def __init__(self) -> None:
        self.delayed: Callable[[], None] = _nothing
        """A job is due soon, but not yet."""
        self.recorded: Callable[[], None] = _nothing
        """The outbox has something new."""
        self.signalled: Callable[[frozenset[str]], None] = _nobody
        """These workers have signals to read."""
        self.troubled: Callable[[], None] = _nothing
        """The store did not take a claim or a put."""
        self.recheck: Callable[[], Awaitable[None]] = _sure
        """Look whether the store is what it was; before the next claim or put after a connection was lost."""
        self.doubtful = False
        """Whether that is to be done: who comes back may have been restored from a backup."""


class HintingAgent:
    """A transport as it is, with hints after what has been done."""

    def __init__(self, agent: AgentTransport, hints: Hints, clock: Clock) -> None:
        self._agent = agent
        self._hints = hints
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    async def put(self, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
        answers = await self._watched(self._agent.put(jobs, put_deadline_us))
        now_us = self._clock.wall_us()
        if any(now_us < job.due_us < now_us + SOON_US for job in jobs):
            self._hints.delayed()
        return answers

    async def claim(
        self, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
    ) -> list[Job]:
        return await self._watched(self._agent.claim(worker, quotas, handlers, limit, ttl_us))

    async def _watched(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        hints = self._hints
        if hints.doubtful:
            try:
                await hints.recheck()
            except BaseException:
                call.close()
                raise
            hints.doubtful = False
        try:
            return await call
        except StoreError as error:
            hints.doubtful = hints.doubtful or isinstance(error, AgentUnreachable | Indeterminate)
            hints.troubled()
            raise

    async def settle(self, items: Sequence[Settlement]) -> list[SettleAnswer]:
        answers = await self._agent.settle(items)
        self._hints.recorded()
        if any(0 < item.after_us < SOON_US for item in items):
            self._hints.delayed()
        return answers

    async def signal(self, signals: Sequence[Signal]) -> None:
        await self._agent.signal(signals)
        self._hints.signalled(frozenset(signal.worker for signal in signals))

    async def withdraw(self, lane: str | None, limit: int) -> list[str]:
        ids = await self._agent.withdraw(lane, limit)
        if ids:
            self._hints.recorded()
        return ids

    async def revoke(self, items: Sequence[Revoke]) -> list[Revocation]:
        revocations = await self._agent.revoke(items)
        self._hints.recorded()
        return revocations


def hinting(agent: AgentTransport, hints: Hints, clock: Clock) -> AgentTransport:
    """The same transport, giving hints."""
    return cast("AgentTransport", HintingAgent(agent, hints, clock))
