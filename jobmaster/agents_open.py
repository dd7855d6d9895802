"""The opened agents of one process, by name: transports, their store time and their backlog."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import TypeVar, cast

import structlog

from jobmaster.agent_link import AgentLink
from jobmaster.contracts.agent import AgentTransport, SharingTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import HistoryTables, ProbeReport
from jobmaster.loop import Loop
from jobmaster.model.errors import AgentUnreachable, JobMasterError, NameInvalid, StoreError
from jobmaster.store_time import StoreTime

Answer = TypeVar("Answer")

BACKLOG_SECONDS = 1.0
"""How long a reading of the backlogs serves: placement must not cost a statement per job."""
READING_SECONDS = 0.3
"""How long placement waits for such a reading: an agent that hangs must not hold up a job that can go elsewhere."""

_log = structlog.get_logger("jobmaster.agents")


def _nobody(name: str) -> None:
    return


class Agents:
    """What the scheduler, the duties and the workers of one process share. Opened once, closed by who opened it."""

    def __init__(
        self,
        transports: Mapping[str, AgentTransport],
        clock: Clock,
        database_key: str | None = None,
        rng: Random | None = None,
        by_lane: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """`by_lane`: the agents of lanes that only some serve."""
        self.arrived: Callable[[str], None] = _nobody
        """Called with the name of an agent that was away at the start and has been opened now."""
        self._links = {name: AgentLink(transport) for name, transport in transports.items()}
        self._transports = {name: cast("AgentTransport", link) for name, link in self._links.items()}
        self._openers: dict[str, Loop] = {}
        self._readings: dict[str, asyncio.Task[int | None]] = {}
        self._silent: set[str] = set()
        self._rng = rng or Random()  # noqa: S311 - for jitter
        self._clock = clock
        # Asked for by name each time: a link is one thing before its agent is open, and another one after.
        self._times = {name: StoreTime(clock, _reader(link)) for name, link in self._transports.items()}
        self._backlog: dict[str, int] = {}
        self._backlog_at = float("-inf")
        self._master_key = database_key
        self.by_lane = {
            lane: found for lane, names in (by_lane or {}).items() if (found := tuple(n for n in names if n in self))
        }
        """The agents to draw from for a job of such a lane; of any other lane, all."""
        self.leaving: dict[str, str | None] = {}
        """Agents to which no job is handed any more, as the master says, and where those bound to them go instead;
        None: to any other. May name agents that this process does not serve."""
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

    def instead(self, name: str) -> str | None:
        """Where a job goes that is bound to this agent: there, unless the agent leaves. None: to any that stays."""
        seen: set[str] = set()
        place: str | None = name
        while place is not None and place in self.leaving:
            if place in seen:
                return None
            seen.add(place)
            place = self.leaving[place]
        return place

    @property
    def covered(self) -> tuple[str, ...]:
        """The agents whose bound schedules this process can plan: its own, and those that leave."""
        return (*self._transports, *(name for name in self.leaving if name not in self._transports))

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

    def share_history(self, tables: HistoryTables | None) -> None:
        """Let the agents in the master's own database write ends of jobs into its history, those that can."""
        for name, link in self._links.items():
            if tables is not None and self.shares_master(name) and link.agent.traits.writes_history:
                cast("SharingTransport", link.agent).write_history(tables)

    def problem(self, name: str) -> str | None:
        """Why an agent is not open; None where it is."""
        return self._links[name].problem

    async def opened(self, name: str) -> None:
        """Return once the agent is open."""
        await self._links[name].opened.wait()

    async def open(self) -> dict[str, AgentUnreachable]:
        """Open all at once. Those that do not answer are opened in the background; their errors are given. An agent
        that can't be used as it is (unsafe, outdated, misconfigured) ends this: those that were opened are closed again
        and its error is raised, with a note naming the agent."""
        opened = await asyncio.gather(*(self._open(name) for name in self._links), return_exceptions=True)
        away: dict[str, AgentUnreachable] = {}
        for name, answer in zip(self._links, opened, strict=True):
            if isinstance(answer, AgentUnreachable):
                away[name] = answer
            elif isinstance(answer, BaseException):
                await self.close()
                raise answer
        for name, error in away.items():
            _log.warning("agent.away", agent=name, error=str(error), then="it is opened as soon as it answers")
            self._openers[name] = opener = Loop(
                f"open:{name}", partial(self._open_late, name), clock=self._clock, rng=self._rng
            )
            opener.start()
        return away

    async def _open(self, name: str) -> None:
        try:
            self.reports[name] = await self._links[name].open()
            await self._times[name].measure()
        except JobMasterError as error:
            error.add_note(f"while opening agent {name!r}")
            raise

    async def _open_late(self, name: str) -> float:
        await self._open(name)
        _log.info("agent.opened", agent=name)
        self.arrived(name)
        # From within its own pass: this was the last one.
        await self._openers[name].stop()
        return 0

    async def close(self) -> None:
        """Close all. Never raises."""
        await asyncio.gather(*(opener.stop(grace=0.5) for opener in self._openers.values()))
        for reading in self._readings.values():
            reading.cancel()
        await asyncio.gather(*(link.close() for link in self._links.values()))

    async def backlog(self) -> dict[str, int]:
        """Ready and running jobs per agent, at most a second old. An agent that did not answer is left out."""
        if self._clock.mono() - self._backlog_at >= BACKLOG_SECONDS:
            # Set first: of many enqueues at once only one asks, the others use the reading before.
            self._backlog_at = self._clock.mono()
            await self._read_backlogs()
        return self._backlog

    async def _read_backlogs(self) -> None:
        """Ask all. One that hangs is waited for once, and not again until it has answered that question."""
        hanging = {name for name, reading in self._readings.items() if not reading.done()}
        self._silent -= self._answered().keys()
        asked = {name: asyncio.ensure_future(self._read_backlog(name)) for name in self._links if name not in hanging}
        self._readings.update(asked)
        waited_for = [reading for name, reading in asked.items() if name not in self._silent]
        if waited_for:
            await asyncio.wait(waited_for, timeout=READING_SECONDS)
        self._backlog = self._answered()
        self._silent = self._links.keys() - self._backlog.keys()

    def _answered(self) -> dict[str, int]:
        return {
            name: jobs
            for name, reading in self._readings.items()
            if reading.done() and not reading.cancelled() and (jobs := reading.result()) is not None
        }

    def refused(self, name: str) -> None:
        """An agent took no job: it is drawn again only after the next reading."""
        self._backlog.pop(name, None)

    def placed(self, name: str, jobs: int) -> None:
        """Jobs went to an agent: counted until the next reading, or all that come before it would go there, too."""
        if name in self._backlog:
            self._backlog[name] += jobs

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


def _reader(agent: AgentTransport) -> Callable[[], Awaitable[int]]:
    async def read() -> int:
        return await agent.store_now_us()

    return read
