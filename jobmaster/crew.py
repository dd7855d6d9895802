"""Crew: the workers of one process, which come and go while it runs."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Self

from jobmaster import __version__
from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import WorkerCard
from jobmaster.coordination.duties import Duties
from jobmaster.listeners import Listeners
from jobmaster.model.errors import NameInvalid, OptionInvalid
from jobmaster.settings import ClusterSettings, Defaults, WorkerSettings
from jobmaster.worker.worker import Worker

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster

Lanes = Mapping[str, int | None] | Sequence[str]
"""Lane names, or a table of lanes with their own slots (None: shared)."""


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

    async def stop(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - a step of the worker's ladder has it
        """Drain and remove it: running jobs may finish for `timeout` seconds (the setting `shutdown` unless given),
        what it had not started goes back. A second call while one is under way interrupts what still runs."""
        await self._crew.dismiss(self._worker, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


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

    def adopt(self, worker: str) -> None:
        """Count this worker as one of them, though its runs are made elsewhere in this process."""
        self._hired.add(worker)

    async def hire(self, settings: WorkerSettings, duties: Duties) -> WorkerHandle:
        """Start a worker. Once this returns it is known to its agent and claims jobs."""
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
        return WorkerHandle(self, worker)

    async def dismiss(self, worker: Worker, timeout: float | None) -> None:  # noqa: ASYNC109 - handed on
        """Stop a worker and take it off the lists."""
        await worker.stop(timeout)
        if self._workers.pop(worker.id, None) is not None:
            await self._duties.farewell(worker.settings.agent, worker.id)

    async def dismiss_all(self, timeout: float | None) -> None:  # noqa: ASYNC109 - handed on
        """All of them at the same time."""
        await asyncio.gather(*(self.dismiss(worker, timeout) for worker in tuple(self._workers.values())))


def worker_settings(
    settings: ClusterSettings,
    *,
    name: str | None,
    agent: str | None,
    slots: int | None,
    lanes: Lanes | None,
    prefetch: int | None,
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
    try:
        return WorkerSettings.model_validate(given)
    except ValueError as error:
        raise OptionInvalid("worker", {key: value for key, value in given.items() if value}, str(error)) from None
