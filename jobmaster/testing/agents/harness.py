"""AgentStore: what a transport's author supplies to run the contract suite, one small class per transport.

    class MyStore(AgentStore):
        async def open(self, *, name=None, cluster=None, clock=None):
            agent = MyAgent(self.url, cluster=cluster or self.cluster, name=name or self.name, clock=clock)
            await agent.open()
            return self.keep(agent)

    class TestMyAgent(AgentContract):
        @pytest_asyncio.fixture
        async def store(self):
            store = MyStore()
            yield store
            await store.close()

The faults below are optional: a store that cannot play one keeps the default, which skips the case and says why.
"""

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, TypeVar

import pytest

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.values import Control, ControlKind
from jobmaster.testing.clock import ManualClock

Transport = TypeVar("Transport", bound=AgentTransport)

LONGEST_REAL_WAIT = 5.0
"""Seconds; cases that need more run only where store time is a manual clock."""


class AgentStore(ABC):
    """One store, fresh for every case, and what a test may do to it."""

    name = "transport-1"
    cluster = "contract"
    clock: ManualClock | None = None
    """Store time, where it is ours to move."""
    claim_p99_seconds = 0.25
    """What a claim of 10 from a backlog of 10,000 may take."""

    def __init__(self) -> None:
        self._opened: list[AgentTransport] = []

    @abstractmethod
    async def open(
        self, *, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> AgentTransport:
        """A new, open handle on the same underlying store: another process, as far as the transport can tell.
        `clock` is that process's own."""

    def keep(self, agent: Transport) -> Transport:
        """Note a handle to be closed with the store."""
        self._opened.append(agent)
        return agent

    async def close(self) -> None:
        """Close every handle, then whatever the store itself needs."""
        for agent in reversed(self._opened):
            await agent.close()
        self._opened.clear()

    async def advance(self, seconds: float) -> None:
        """Let this much store time pass, and a hair more."""
        if self.clock is not None:
            self.clock.advance(seconds + 0.001)
        elif seconds > LONGEST_REAL_WAIT:
            skip(f"needs {seconds:g} s of store time, which can't be moved here")
        else:
            await asyncio.sleep(seconds + 0.001)

    async def restart(self) -> None:
        """Stop the store and start it again; handles opened before are closed."""
        await self.close()

    async def rewind(self) -> AbstractAsyncContextManager[None]:
        """Remember the store as it is now; leaving the context puts it back to that, as restoring a backup would.
        Handles opened before are closed then."""
        skip("this store has no way to be set back to an earlier state")

    async def reincarnate(self) -> None:
        """Give the store another incarnation under its open handles, as the end of a reconciliation does."""
        other = await self.open()
        await other.control(Control(ControlKind.QUARANTINE))
        await other.adopt("another")

    async def unsafe(self) -> AgentTransport:
        """A handle, not yet open, on a store with a setting that breaks a promise."""
        skip("this store has no unsafe settings")

    async def corrupt(self, job_id: str) -> None:
        """Make the stored row of a job unreadable."""
        skip("rows of this store can't be damaged from outside")

    async def failing(self, verb: str, point: str) -> AgentTransport:
        """A handle that loses its connection in the next call of this verb: `before` the request is sent, `during`
        its execution, `after` it was committed."""
        skip("this store has no connection to lose")

    async def plans(self, verb: str) -> list[str]:
        """Complaints about the query plan of a verb on a large store: each scan or sort it should not do."""
        skip("this store has no query plans")


def skip(reason: str) -> NoReturn:
    """End the case here: it can't apply to this transport."""
    pytest.skip(reason)


class SkewedClock:
    """The clock of a process whose host is wrong by some seconds."""

    def __init__(self, seconds: float, under: Clock | None = None) -> None:
        self._shift_us = round(seconds * 1e6)
        self._under = under or SystemClock()

    def wall_us(self) -> int:
        return self._under.wall_us() + self._shift_us

    def mono(self) -> float:
        return self._under.mono()

    async def sleep(self, seconds: float) -> None:
        await self._under.sleep(seconds)
