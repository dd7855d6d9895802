"""Crew: the workers of one process, which come and go while it runs."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Self

import structlog

from jobmaster import __version__
from jobmaster.agents_open import Agents
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import WorkerCard
from jobmaster.coordination.duties import Duties
from jobmaster.listeners import Listeners
from jobmaster.loop import Loop
from jobmaster.model.errors import NameInvalid, OptionInvalid
from jobmaster.settings import ClusterSettings, Defaults, WorkerMode, WorkerSettings
from jobmaster.worker.worker import Worker

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster

Lanes = Mapping[str, int | None] | Sequence[str]
"""Lane names, or a table of lanes with their own slots (None: shared)."""

DRAIN_SECONDS = 0.5
"""How often a worker that drains looks whether anything is left."""

_log = structlog.get_logger("jobmaster.crew")


class WorkerHandle:
    """A worker of this process, as `add_worker` gives it."""

    def __init__(self, crew: "Crew", worker: Worker) -> None:
        self._crew = crew
        self._worker = worker

    @property
    def id(self) -> str:
        return self._worker.id

    @property
    def card(self) -> WorkerCard:
        """What it says of itself now."""
        return self._worker.card()

    def quiet(self) -> None:
        """Have it claim nothing more; what it has is run."""
        self._worker.quiet()

    def resume(self) -> None:
        """Have it claim again."""
        self._worker.resume()

    def scale(self, slots: int, lane: str | None = None) -> None:
        """Have it run that many jobs at a time: of `lane`, if that has slots of its own, else of the lanes that share
        them. Raises `OptionInvalid`."""
        self._worker.scale(slots, lane)

    async def stop(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - a step of the worker's ladder has it
        """Drain and remove it: running jobs may finish for `timeout` seconds (the setting `shutdown` unless given),
        what it had not started goes back. A second call while one is under way interrupts what still runs."""
        await self._crew.dismiss(self._worker, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Remainder:
    """What is left of an agent's lanes: jobs that are ready or running, whoever runs them."""

    def __init__(self, agent: AgentTransport, lanes: Collection[str]) -> None:
        self._agent = agent
        self._lanes = lanes
        self._nothing = 0

    async def any(self) -> bool:
        """Nothing has to be seen twice: a job between two states is in neither for a moment on some stores."""
        found = [lane for lane in await self._agent.stats() if lane.lane in self._lanes]
        self._nothing = 0 if any(lane.ready or lane.leased for lane in found) else self._nothing + 1
        return self._nothing < 2


class Crew:
    """Hires and dismisses workers, and tells their agents about it."""

    def __init__(
        self,
        cluster: "Cluster",
        agents: Agents,
        listeners: Listeners,
        *,
        clock: Clock,
        rng: Random,
        on_stop: Callable[[], None],
    ) -> None:
        """`on_stop` is called when a worker is told, through its agent, to stop."""
        self._cluster = cluster
        self._agents = agents
        self._listeners = listeners
        self._clock = clock
        self._rng = rng
        self._on_stop = on_stop
        self._workers: dict[str, Worker] = {}
        self._hired: set[str] = set()
        self._expected: list[Loop] = []

    @property
    def handles(self) -> tuple[WorkerHandle, ...]:
        """Those that have not stopped."""
        return tuple(WorkerHandle(self, worker) for worker in self._workers.values())

    def cards(self, agent: str) -> list[WorkerCard]:
        """What those attached to one agent say of themselves."""
        return [worker.card() for worker in self._workers.values() if worker.settings.agent == agent]

    def signalled(self, workers: frozenset[str]) -> None:
        """Signals were left for these: those of this process need not wait until they look."""
        for name in workers & self._workers.keys():
            self._workers[name].signalled()

    def hired(self, worker: str) -> bool:
        """Whether this worker is, or was, one of them."""
        return worker in self._hired

    def wake(self, agent: str) -> None:
        """There may be jobs for those attached to this agent."""
        for worker in self._workers.values():
            if worker.settings.agent == agent:
                worker.wake()

    def adopt(self, worker: str) -> None:
        """Count this worker as one of them, though its runs are made elsewhere in this process."""
        self._hired.add(worker)

    async def hire(self, settings: WorkerSettings, duties: Duties) -> WorkerHandle:
        """Start a worker, as soon as its agent is open. Once this returns it is known to its agent and claims jobs."""
        problem = self._agents.problem(settings.agent)
        if problem is not None:
            _log.warning("worker.waits_for_agent", worker=settings.name, agent=settings.agent, problem=problem)
            await self._agents.opened(settings.agent)
        worker = Worker(
            settings,
            self._cluster.settings.timings,
            self._cluster.settings.limits,
            agent=self._agents[settings.agent],
            registry=self._cluster.registry,
            listeners=self._listeners,
            clock=self._clock,
            rng=self._rng,
            on_stop=self._on_stop,
            on_change=partial(duties.wake, f"heartbeat:{settings.agent}"),
            version=__version__,
        )
        self._workers[worker.id] = worker
        self._hired.add(worker.id)
        self._duties = duties
        try:
            await duties.welcome(settings.agent, worker.card())
            await worker.start()
        except BaseException:
            del self._workers[worker.id]
            raise
        # It was made known before it began.
        duties.wake(f"heartbeat:{settings.agent}")
        if settings.mode is WorkerMode.DRAIN:
            self._drain(worker)
        return WorkerHandle(self, worker)

    def _drain(self, worker: Worker) -> None:
        """Let it go once nothing is left for it, and the process with the last one."""
        left = Remainder(self._agents[worker.settings.agent], worker.settings.lanes)

        async def let_go() -> float:
            if await left.any() or worker.busy:
                return DRAIN_SECONDS
            _log.info("worker.drained", worker=worker.id, lanes=sorted(worker.settings.lanes))
            await self.dismiss(worker, None)
            if not self._workers:
                self._on_stop()
            await watch.stop()
            return 0

        watch = Loop(f"drain:{worker.id}", let_go, clock=self._clock, rng=self._rng, idle=DRAIN_SECONDS)
        self._expected.append(watch)
        watch.start()

    async def expect(self, settings: WorkerSettings, duties: Duties) -> None:
        """Start a worker: now if its agent is open, else as soon as it is."""
        problem = self._agents.problem(settings.agent)
        if problem is None:
            await self.hire(settings, duties)
            return
        _log.warning("worker.waits_for_agent", worker=settings.name, agent=settings.agent, problem=problem)

        async def hire_late() -> float:
            await self._agents.opened(settings.agent)
            await self.hire(settings, duties)
            # From within its own pass: this was the last one. If the agent went away again, there will be another.
            await expected.stop()
            return 0

        expected = Loop(f"hire:{settings.agent}", hire_late, clock=self._clock, rng=self._rng)
        self._expected.append(expected)
        expected.start()

    async def dismiss(self, worker: Worker, timeout: float | None) -> None:  # noqa: ASYNC109 - handed on
        """Stop a worker and take it off the lists."""
        await worker.stop(timeout)
        if self._workers.pop(worker.id, None) is not None:
            await self._duties.farewell(worker.settings.agent, worker.id)

    async def dismiss_all(self, timeout: float | None) -> None:  # noqa: ASYNC109 - handed on
        """All of them at the same time, and those expected do not come."""
        await asyncio.gather(*(expected.stop(grace=0.5) for expected in self._expected))
        await asyncio.gather(*(self.dismiss(worker, timeout) for worker in tuple(self._workers.values())))


def worker_settings(
    settings: ClusterSettings,
    *,
    name: str | None,
    agent: str | None,
    slots: int | None,
    lanes: Lanes | None,
    prefetch: int | None,
    mode: WorkerMode | str | None = None,
) -> WorkerSettings:
    """Settings of a worker added at run time, completed with the cluster's defaults. Raises `NameInvalid` and
    `OptionInvalid`."""
    known = ", ".join(settings.agents)
    if agent is None:
        if len(settings.agents) != 1:
            raise OptionInvalid("agent", None, f"one of {known}, as the cluster has several")
        (agent,) = settings.agents
    elif agent not in settings.agents:
        raise NameInvalid("agent", agent, f"one of {known}")
    defaults: Defaults = settings.defaults
    given: dict[str, Any] = {
        "name": name,
        "agent": agent,
        "slots": defaults.slots if slots is None else slots,
        "prefetch": defaults.prefetch if prefetch is None else prefetch,
    }
    if lanes is not None:
        given["lanes"] = lanes
    if mode is not None:
        given["mode"] = mode
    try:
        return WorkerSettings.model_validate(given)
    except ValueError as error:
        raise OptionInvalid("worker", {key: value for key, value in given.items() if value}, str(error)) from None
