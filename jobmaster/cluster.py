"""`Cluster`: a configuration that was checked as a whole. It holds no connection; what runs it is made from it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.scheduling import Schedule
from jobmaster.listeners import Callback, EventKind, Listeners
from jobmaster.placement import agents_by_lane
from jobmaster.registry import Registry
from jobmaster.settings.frozen import FrozenTable
from jobmaster.settings.models import ClusterSettings, WorkerSettings

if TYPE_CHECKING:
    from jobmaster.runtime import Runtime
    from jobmaster.scheduler import Scheduler

_log = structlog.get_logger("jobmaster.cluster")


class Cluster:
    """What `ClusterBuilder.build()` gives: frozen, and to be run any number of times, in any number of processes."""

    __slots__ = ("_by_lane", "_callbacks", "_declared", "_is_default", "_registry", "_settings")

    def __init__(
        self,
        settings: ClusterSettings,
        registry: Registry,
        callbacks: Mapping[EventKind, tuple[Callback, ...]] | None = None,
        declared: Mapping[str, tuple[Schedule, ...]] | None = None,
        *,
        is_default: bool = False,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._callbacks = FrozenTable({str(kind): tuple(found) for kind, found in (callbacks or {}).items()})
        self._declared = FrozenTable(dict(declared or {}))
        self._by_lane = agents_by_lane(settings.workers)
        self._is_default = is_default

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def is_default(self) -> bool:
        """Whether it is meant where a program with several clusters names none."""
        return self._is_default

    @property
    def settings(self) -> ClusterSettings:
        return self._settings

    @property
    def registry(self) -> Registry:
        return self._registry

    @property
    def declared(self) -> Mapping[str, tuple[Schedule, ...]]:
        """The schedules that its code declares, by profile."""
        return self._declared

    @property
    def by_lane(self) -> Mapping[str, tuple[str, ...]]:
        """The agents whose workers serve a lane, of the workers it was built with; also where this process runs none of
        them."""
        return self._by_lane

    def with_settings(self, settings: ClusterSettings) -> "Cluster":
        """The same handlers and listeners under other settings, which are taken as they are."""
        cluster = Cluster(settings, self._registry, is_default=self._is_default)
        cluster._callbacks = self._callbacks
        cluster._declared = self._declared
        cluster._by_lane = cluster._by_lane or self._by_lane
        return cluster

    def with_workers(self, *workers: WorkerSettings) -> "Cluster":
        """The same cluster for a process that runs these workers."""
        # Which agents serve a lane is said by the workers it was built with, not by those of one process.
        settings = self._settings.model_copy(update={"workers": workers})
        cluster = Cluster(settings, self._registry, is_default=self._is_default)
        cluster._callbacks, cluster._declared, cluster._by_lane = self._callbacks, self._declared, self._by_lane
        return cluster

    def without_workers(self) -> "Cluster":
        """The same cluster for a process that adds its workers itself."""
        return self.with_settings(self._settings.model_copy(update={"workers": ()}))

    def accepting_unsafe(self) -> "Cluster":
        """The same cluster, working also with stores whose settings break a promise; which one, their findings say."""
        from jobmaster.transports import accepting_unsafe

        return self.with_settings(accepting_unsafe(self._settings))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works, but hardly as it was meant; logged by each start."""
        return warnings_of(self._settings, self._registry)

    def listeners(self) -> Listeners:
        """The listeners of one runtime: fresh ones, as they belong to the loop they are started on."""
        return Listeners({EventKind(kind): found for kind, found in self._callbacks.items()})

    @asynccontextmanager
    async def run(self, *, clock: Clock | None = None) -> AsyncIterator["Runtime"]:
        """Open the stores, start the duties and the workers; stop them gracefully at the end of the block."""
        runtime = await self.start(clock=clock)
        try:
            yield runtime
        finally:
            await runtime.stop()

    async def start(self, *, clock: Clock | None = None) -> "Runtime":
        """Like `run`, for programs that have no block to put it in: `await runtime.stop()` ends it."""
        from jobmaster.runtime import Runtime

        for warning in self.warnings:
            _log.warning("cluster.doubtful", cluster=self.name, warning=warning)
        return await Runtime.start(self, clock=clock)

    @asynccontextmanager
    async def connect(self, *, clock: Clock | None = None) -> AsyncIterator["Scheduler"]:
        """A scheduler without a worker and without a duty, for programs that only enqueue and ask."""
        from jobmaster.runtime import Runtime

        runtime = await Runtime.connect(self, clock=clock)
        try:
            yield runtime.scheduler
        finally:
            await runtime.stop()

    def __repr__(self) -> str:
        return f"Cluster({self.name!r}, agents={list(self._settings.agents)}, handlers={sorted(self._registry.names)})"


def warnings_of(settings: ClusterSettings, registry: Registry) -> tuple[str, ...]:
    """A master that forgets what its agents keep, and handlers whose jobs no worker of these would ever run."""
    warnings = []
    durable = [name for name, agent in settings.agents.items() if agent.scheme != "memory"]
    if settings.master.scheme == "memory" and durable:
        warnings.append(
            f"the master is in memory, so history, held jobs and schedules end with this process, while agent "
            f"{durable[0]!r} keeps its jobs; give the master a database, such as .use_sqlite_for_master('jobmaster.db')"
        )
    served = {lane for worker in settings.workers for lane in worker.lanes}
    unserved = [handler for handler in registry if settings.workers and handler.lane not in served]
    lanes = ", ".join(repr(lane) for lane in sorted(served))
    warnings += [
        f"{handler.label} uses lane {handler.lane!r}, but the workers of this configuration serve only {lanes}; its "
        f"jobs wait unless another process serves it: .add_worker().lanes({lanes}, {handler.lane!r})"
        for handler in unserved
    ]
    return tuple(warnings)
