"""The opened agents of one process, by name: transports, their store time and their backlog."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import ProbeReport
from jobmaster.model.errors import JobMasterError, NameInvalid, StoreError
from jobmaster.store_time import StoreTime

Answer = TypeVar("Answer")

BACKLOG_SECONDS = 1.0
"""How long a reading of the backlogs serves: placement must not cost a statement per job."""


class Agents:
    """What the scheduler, the duties and the workers of one process share. Opened once, closed by who opened it."""

    def __init__(self, transports: Mapping[str, AgentTransport], clock: Clock, database_key: str | None = None) -> None:
        self._transports = dict(transports)
        self._clock = clock
        self._times = {name: StoreTime(clock, transport.store_now_us) for name, transport in transports.items()}
        self._backlog: dict[str, int] = {}
        self._backlog_at = float("-inf")
        self._master_key = database_key
        self.reports: dict[str, ProbeReport] = {}
        """What each agent said when it was opened."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._transports)

    def __getitem__(self, name: str) -> AgentTransport:
        """Raises `NameInvalid` for a name this cluster has no agent of; a `KeyError` would say less."""
        try:
            return self._transports[name]
        except KeyError:
            raise NameInvalid("agent", name, f"one of {', '.join(self._transports) or '(none)'}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._transports

    def __iter__(self) -> Iterator[str]:
        return iter(self._transports)

    def __len__(self) -> int:
        return len(self._transports)

    def time(self, name: str) -> StoreTime:
        """The agent's store time."""
        return self._times[name]

    def shares_master(self, name: str) -> bool:
        """Whether this agent lives in the master's own database, so that its outbox moves server-side and lists are
        unions of both."""
        return self._master_key is not None and self[name].traits.database_key == self._master_key

    async def open(self) -> None:
        """Open all at once. If one cannot be opened, those that were are closed again and its error is raised, with a
        note naming the agent."""
        opened = await asyncio.gather(*(self._open(name) for name in self._transports), return_exceptions=True)
        for answer in opened:
            if isinstance(answer, BaseException):
                await self.close()
                raise answer

    async def _open(self, name: str) -> None:
        try:
            self.reports[name] = await self._transports[name].open()
            await self._times[name].measure()
        except JobMasterError as error:
            error.add_note(f"while opening agent {name!r}")
            raise

    async def close(self) -> None:
        """Close all. Never raises."""
        await asyncio.gather(*(transport.close() for transport in self._transports.values()))

    async def backlog(self) -> dict[str, int]:
        """Ready and running jobs per agent, at most a second old. An agent that did not answer is left out."""
        if self._clock.mono() - self._backlog_at >= BACKLOG_SECONDS:
            # Set first: of many enqueues at once only one asks, the others use the reading before.
            self._backlog_at = self._clock.mono()
            names = self.names
            answers = await asyncio.gather(*(self._read_backlog(name) for name in names))
            self._backlog = {name: jobs for name, jobs in zip(names, answers, strict=True) if jobs is not None}
        return self._backlog

    async def _read_backlog(self, name: str) -> int | None:
        try:
            return sum(lane.ready + lane.leased for lane in await self._transports[name].stats())
        except StoreError:
            return None

    async def ask(
        self, names: Sequence[str], question: Callable[[AgentTransport], Awaitable[Answer]]
    ) -> tuple[dict[str, Answer], dict[str, StoreError]]:
        """Put one question to several agents at the same time: the answers, and the errors of those that gave none."""
        answers = await asyncio.gather(*(question(self[name]) for name in names), return_exceptions=True)
        given: dict[str, Answer] = {}
        failed: dict[str, StoreError] = {}
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, StoreError):
                failed[name] = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                given[name] = answer
        return given, failed
