"""Runtime: a cluster running in this process. The composition root: here, and nowhere else, the parts are put together.

It opens the master and the agents, makes the process known, runs the duties and the workers, and takes all of it down
again in the order of `_LADDER`. What was opened is closed also when a later part fails to start.

A store that does not answer stops nothing that can do without it: it is opened, and the process made known there, as
soon as it answers. Only what can't mend itself ends a start at once, or that no store answers at all.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.entries import Placement
from jobmaster.coordination.duties import Duties
from jobmaster.coordination.hints import Hints, hinting
from jobmaster.coordination.retention import rules
from jobmaster.coordination.router import OnUnroutable
from jobmaster.crew import Crew, Lanes, WorkerHandle, worker_settings
from jobmaster.introduction import IDLE_SECONDS as INTRODUCTION_SECONDS
from jobmaster.introduction import Introduction
from jobmaster.listeners import EventKind, JobEvent
from jobmaster.loop import Health, Loop
from jobmaster.master import open_master
from jobmaster.master_link import MasterLink
from jobmaster.model.errors import ConfigurationError, JobMasterError, MasterUnavailable, OptionInvalid, WorkerNotFound
from jobmaster.open_clusters import enter
from jobmaster.scheduler import Scheduler
from jobmaster.settings import WorkerMode
from jobmaster.store_time import StoreTime
from jobmaster.telemetry.logging import configure_unless_configured
from jobmaster.transports import make_transport
from jobmaster.worker import process

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster

FINAL_SYNC_SECONDS = 10.0
STARTED_INSIDE = (
    "a cluster was started where a handler's own process imports the program; write "
    '`if __name__ == "__main__":` before what starts it'
)

_log = structlog.get_logger("jobmaster.runtime")


class Runtime:
    """Made by `Cluster.run`, `Cluster.start` and `Cluster.connect`; belongs to the event loop it was started on."""

    def __init__(self, cluster: "Cluster", clock: Clock | None = None) -> None:
        """Puts the parts together without any I/O, and configures logging as the settings say where the program has not
        done so. Raises `ConfigurationError`."""
        if process.inside:
            raise ConfigurationError([STARTED_INSIDE])
        settings = cluster.settings
        configure_unless_configured(settings.log.format, settings.log.level)
        self.cluster = cluster
        self.clock = clock or SystemClock()
        self.stop_requested = asyncio.Event()
        """Set by `request_stop`: whoever runs this process then calls `stop`."""
        self.fault: JobMasterError | None = None
        """Why the process asked for its own stop; then it should end as one that failed."""
        self._rng = Random()  # noqa: S311 - for jitter and drawing agents
        self._listeners = cluster.listeners()
        self._stack = AsyncExitStack()
        self._stopping: asyncio.Task[None] | None = None
        address = settings.master
        opened = open_master(
            address.url.get_secret_value(), cluster=settings.name, clock=self.clock, options=dict(address.options)
        )
        self._link = MasterLink(opened, self.clock, self._rng)
        self._link.returned = self._master_returned
        self.master = self._link.store
        self._hints = {name: Hints() for name in settings.agents}
        transports = {
            name: hinting(make_transport(agent, settings.name, self.clock), self._hints[name], self.clock)
            for name, agent in settings.agents.items()
        }
        self.agents = Agents(transports, self.clock, self.master.database_key, self._rng, cluster.by_lane)
        self.agents.share_history(self.master.history_tables)
        self.agents.arrived = self._agent_arrived
        self._introduction = Introduction(self.master, self.agents, settings, cluster.registry, cluster.declared)
        self._introducing = Loop(
            "introduction", self._introduce_late, clock=self.clock, rng=self._rng, idle=INTRODUCTION_SECONDS
        )
        self.scheduler = Scheduler(
            settings,
            cluster.registry,
            self.master,
            self.agents,
            self._listeners,
            self.clock,
            self._rng,
            wake=self._look_at_master,
            offer=self._offer,
        )
        self._crew = Crew(
            cluster, self.agents, self._listeners, clock=self.clock, rng=self._rng, on_stop=self.request_stop
        )
        for hints in self._hints.values():
            hints.signalled = self._crew.signalled
        self._duties: Duties | None = None

    @classmethod
    async def start(cls, cluster: "Cluster", *, clock: Clock | None = None) -> Self:
        """Open the stores, make this process known and start duties and workers. If any of that fails, what was begun
        is undone and the error is raised."""
        runtime = cls(cluster, clock)
        try:
            await runtime._open()
            await runtime._introduce()
            duties = runtime._make_duties()
            duties.start()
            for settings in cluster.settings.workers:
                if settings.mode is not WorkerMode.COORDINATOR:
                    await runtime._crew.expect(settings, duties)
        except BaseException:
            await runtime.stop(0)
            raise
        _log.info("runtime.started", cluster=cluster.name, agents=list(runtime.agents), workers=len(runtime.workers))
        return runtime

    @classmethod
    async def connect(cls, cluster: "Cluster", *, clock: Clock | None = None) -> Self:
        """Open the stores for a scheduler alone: no worker, no duty, and nothing is made known."""
        runtime = cls(cluster, clock)
        try:
            await runtime._open()
        except BaseException:
            await runtime.stop(0)
            raise
        return runtime

    @classmethod
    async def rehearse(cls, cluster: "Cluster", *, clock: Clock, worker: str) -> Self:
        """Open the stores and make the duties, but have nothing run by itself: the testing kit asks each duty for its
        passes, and runs jobs under the name of `worker`."""
        runtime = cls(cluster, clock)
        try:
            await runtime._open()
            await runtime._introduction.run()
            runtime._crew.adopt(worker)
            runtime._make_duties()
        except BaseException:
            await runtime.stop(0)
            raise
        return runtime

    async def sync_history(self) -> None:
        """Bring over to the master what this process's agents have recorded until now, rather than within a second."""
        assert self._duties is not None, "this runtime only connects"
        await self._duties.sync()

    async def pass_duties(self) -> None:
        """One pass of each duty, now, and the outboxes emptied; what a duty raises is raised."""
        assert self._duties is not None, "this runtime only connects"
        await self._duties.pass_once()
        await self.sync_history()

    @property
    def workers(self) -> tuple[WorkerHandle, ...]:
        """The workers of this process that have not stopped."""
        return self._crew.handles

    @property
    def health(self) -> Mapping[str, Health]:
        """How each duty of this process is doing, by its name."""
        return self._duties.health if self._duties is not None else {}

    async def add_worker(
        self,
        name: str | None = None,
        *,
        agent: str | None = None,
        slots: int | None = None,
        lanes: Lanes | None = None,
        prefetch: int | None = None,
        mode: WorkerMode | str | None = None,
    ) -> WorkerHandle:
        """Start one more worker while the cluster runs. Once this returns it is known to its agent and claims jobs; if
        that agent does not answer, this waits until it does. `agent` may be left out where there is only one; of the
        modes, only `drain` makes a difference to a process that runs already. Raises `NameInvalid` and
        `OptionInvalid`."""
        if self._duties is None or self._stopping is not None:
            raise JobMasterError("this runtime runs no workers: it only connects, or is being stopped")
        settings = worker_settings(
            self.cluster.settings, name=name, agent=agent, slots=slots, lanes=lanes, prefetch=prefetch, mode=mode
        )
        if settings.mode is WorkerMode.COORDINATOR:
            raise OptionInvalid("mode", str(settings.mode), "full, execution or drain: a coordinator runs no jobs")
        return await self._crew.hire(settings, self._duties)

    async def remove_worker(self, worker: WorkerHandle | str, timeout: float | None = None) -> None:  # noqa: ASYNC109 - handed on
        """Stop a worker of this process, given as `add_worker` gave it or by its id or name, and forget it: as
        `WorkerHandle.stop`. Raises `WorkerNotFound`."""
        wanted = worker.id if isinstance(worker, WorkerHandle) else worker
        found = [handle for handle in self.workers if wanted in (handle.id, handle.card.name)]
        if not found:
            raise WorkerNotFound(wanted, [handle.id for handle in self.workers])
        await asyncio.gather(*(handle.stop(timeout) for handle in found))

    def request_stop(self) -> None:
        """Ask whoever runs this process to stop it; from its event loop. What signal handlers call."""
        self.stop_requested.set()

    async def stop(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - of the workers' ladder, not of this call
        """Take everything down in order: running jobs may finish for `timeout` seconds (the setting `shutdown` unless
        given). A second call while the first is under way interrupts what still runs; both return when all is over."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._take_down(timeout), name="jobmaster:stop")
        elif not self._stopping.done():
            await self._crew.dismiss_all(0)
        # Shielded: a caller that is cancelled must not leave half of it open.
        await asyncio.shield(self._stopping)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _open(self) -> None:
        """Master and agents at the same time; each is closed again, whatever becomes of the others. Raises if one
        can't be used as it is, or none answers."""
        self._stack.callback(enter(self.cluster, self.scheduler))
        self._listeners.start()
        self._stack.push_async_callback(self._listeners.stop)
        self._stack.push_async_callback(self._link.close)
        self._stack.push_async_callback(self.agents.close)
        self._stack.push_async_callback(self.scheduler.close)
        master, agents = await asyncio.gather(self._open_master(), self.agents.open(), return_exceptions=True)
        faults = [fault for fault in (master, agents) if isinstance(fault, BaseException)]
        for fault in faults[1:]:
            _log.error("runtime.not_opened", error=str(fault))
        if faults:
            raise faults[0]
        if self._link.problem is not None and isinstance(agents, dict) and len(agents) == len(self.agents):
            raise next(iter(agents.values()), MasterUnavailable(self._link.problem))

    async def _open_master(self) -> None:
        try:
            await self._link.open()
        except JobMasterError as error:
            error.add_note(f"while opening the master, {self.cluster.settings.master.shown_url}")
            raise

    async def _introduce(self) -> None:
        """Now if the master answers, and whatever is not known yet later."""
        try:
            await self._introduction.run()
        except MasterUnavailable:
            _log.warning("runtime.not_introduced", then="its workers run, and are registered once the master is back")
        self._introducing.start()
        self._stack.push_async_callback(self._introducing.stop)

    async def _introduce_late(self) -> float:
        try:
            return await self._introduction.run()
        except ConfigurationError as error:
            # It would have kept this process from starting.
            _log.error("runtime.refused", error=str(error), then="this process stops")
            self.fault = error
            self.request_stop()
            return INTRODUCTION_SECONDS

    def _master_returned(self) -> None:
        """What waited for the master need not wait for its next try."""
        self._introducing.try_again()
        if self._duties is not None:
            self._duties.try_again()

    def _agent_arrived(self, name: str) -> None:
        self._introducing.wake()
        if self._duties is not None:
            self._duties.begin(name)

    def _make_duties(self) -> Duties:
        workers = self.cluster.settings.workers
        self._duties = Duties(
            self.master,
            self.agents,
            self._hints,
            self.cluster.settings.timings,
            crew=self._crew,
            on_unroutable=self._on_unroutable,
            on_quarantined=self._on_quarantined,
            master_time=StoreTime(self.clock, self.master.store_now_us),
            clock=self.clock,
            rng=self._rng,
            coordinates=not workers
            or any(worker.mode in (WorkerMode.FULL, WorkerMode.COORDINATOR) for worker in workers),
            profiles=tuple(self.cluster.declared),
            rules=rules(self.cluster.settings.timings.retention_days, self.cluster.settings.retention),
            redispatch_after={
                name: agent.redispatch_after
                for name, agent in self.cluster.settings.agents.items()
                if agent.redispatch_after is not None
            },
            deeds=self.scheduler.batches,
        )
        self._stack.push_async_callback(self._duties.stop)
        return self._duties

    def _look_at_master(self) -> None:
        if self._duties is not None:
            self._duties.wake("handoff", "planner", "operator")

    def _offer(self, placements: Sequence[Placement]) -> None:
        if self._duties is not None:
            self._duties.offer(placements)

    def _on_unroutable(self, agent: str) -> OnUnroutable:
        def tell(handler: str, lane: str, count: int) -> None:
            self._listeners.emit(
                JobEvent(kind=EventKind.UNROUTABLE, handler=handler, lane=lane, agent=agent, count=count)
            )

        return tell

    def _on_quarantined(self, agent: str, why: str) -> None:
        self._listeners.emit(JobEvent(kind=EventKind.QUARANTINED, agent=agent, reason=why))

    async def _take_down(self, timeout: float | None) -> None:  # noqa: ASYNC109 - handed on
        try:
            for step in self._LADDER:
                await step(self, timeout)
        finally:
            await self._stack.aclose()
        if self._duties is not None:
            _log.info("runtime.stopped", cluster=self.cluster.name)

    async def _dismiss_workers(self, timeout: float | None) -> None:  # noqa: ASYNC109 - handed on
        await self._crew.dismiss_all(timeout)

    async def _complete_history(self, _: float | None) -> None:
        if self._duties is not None:
            try:
                async with asyncio.timeout(FINAL_SYNC_SECONDS):
                    await self._duties.sync()
            except TimeoutError:
                _log.warning("runtime.history_incomplete", then="the agents keep it, the next process brings it over")

    _LADDER = (_dismiss_workers, _complete_history)
    """Then what was begun ends in reverse order: duties, agents, master, listeners."""
