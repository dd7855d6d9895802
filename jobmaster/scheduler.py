"""Scheduler: what application code calls to enqueue jobs, and to look at, wait for and change those there are.

It owns nothing but caches and the watches of those who wait for results: master and agents are opened and closed by
whoever made it. Enqueueing a job that is due soon needs its agent only; what needs the master says so, and fails fast
while that is away.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar, Unpack, overload

from jobmaster.agents_open import Agents
from jobmaster.client.asking import Asking
from jobmaster.client.counting import count
from jobmaster.client.definitions import Definitions
from jobmaster.client.drafting import Drafting
from jobmaster.client.identity import JobId, job_id_of
from jobmaster.client.interventions import Interventions
from jobmaster.client.listing import Listing, job_filter
from jobmaster.client.lookup import Lookup
from jobmaster.client.placing import Placing
from jobmaster.client.recurring import Recurring
from jobmaster.client.times import delay_us, to_us
from jobmaster.client.writing import Writing
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.master import MasterStore
from jobmaster.enqueue import Enqueue, Options, ScheduleOptions
from jobmaster.handle import JobHandle, JobHandles
from jobmaster.handler import JobHandler
from jobmaster.listeners import Listeners
from jobmaster.model.names import check_key
from jobmaster.model.states import JobState
from jobmaster.operations import Operations
from jobmaster.registry import Registry
from jobmaster.settings import ClusterSettings
from jobmaster.views import CancelResult, Counts, JobInfo, JobPage, ScheduleInfo, job_info, schedule_info
from jobmaster.worker.context import JobContext

Data = TypeVar("Data")
ContextFunction = Callable[[JobContext[Data]], Any]
"""A function with `@job` that takes nothing but the job."""
Reference = Callable[..., Any] | str
"""A registered function or method, or the stored name of a handler whose code need not be here."""


def _nothing() -> None:
    """Stands for waking the duties of a process that runs none."""


class Scheduler:
    """The client of one cluster, for one event loop.

    Whatever the first argument of an enqueue, its data are checked before anything is written; when the call returns,
    the job is stored durably. Raises `HandlerUnknown`, `DataInvalid`, `OptionInvalid`, `NameInvalid`, `KeyInvalid` for
    what is wrong with the call; `AgentUnreachable`, `MasterUnavailable` (or another `Refused`) if nothing was stored;
    `Indeterminate`, with id and agent, if that is not known; `JobConflict` if `id=` names another job.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        registry: Registry,
        master: MasterStore,
        agents: Agents,
        listeners: Listeners,
        clock: Clock,
        rng: Random,
        *,
        wake: Callable[[], None] = _nothing,
    ) -> None:
        """`wake` is called when the master was given something for the duties of this process to look at."""
        threshold_us = round(settings.timings.transient_threshold * 1e6)
        self._master = master
        self._agents = agents
        self._wake = wake
        self._registry = registry
        self._limit = settings.limits.data_bytes
        self._placing = Placing(master, agents, clock, rng, wake)
        self._definitions = Definitions(registry, master, clock, settings.defaults.policy())
        drafting = Drafting(settings, agents.names)
        self._writing = Writing(self._definitions, drafting, self._placing, listeners, threshold_us)
        self._recurring = Recurring(master, drafting, clock, self._limit)
        self._lookup = Lookup(master, agents)
        self._asking = Asking(self._lookup, agents)
        self._listing = Listing(master, agents)
        self.operations = Operations(master, agents, round(settings.timings.worker_dead_after * 1e6))
        """What those who run the cluster ask: workers, agents, dead letters."""
        self._interventions = Interventions(
            master, agents, self._lookup, self._placing, listeners, threshold_us=threshold_us, wake=wake
        )

    async def close(self) -> None:
        """End the watches. Those who still wait for a result are cancelled."""
        await self._asking.close()

    @overload
    async def once_now(
        self,
        handler: type[JobHandler[Data]],
        data: Data | Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> JobHandle: ...
    @overload
    async def once_now(
        self,
        handler: ContextFunction[Data],
        data: Data | Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> JobHandle: ...
    @overload
    async def once_now(
        self, handler: Reference, data: Mapping[str, Any] | None = None, **options: Unpack[Options]
    ) -> JobHandle: ...
    async def once_now(self, handler: Any, data: Any = None, **options: Unpack[Options]) -> JobHandle:
        """Enqueue a job that is due at once."""
        return await self._once(handler, data, None, options)

    @overload
    async def once_at(
        self,
        handler: type[JobHandler[Data]],
        when: datetime,
        data: Data | Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> JobHandle: ...
    @overload
    async def once_at(
        self,
        handler: ContextFunction[Data],
        when: datetime,
        data: Data | Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> JobHandle: ...
    @overload
    async def once_at(
        self, handler: Reference, when: datetime, data: Mapping[str, Any] | None = None, **options: Unpack[Options]
    ) -> JobHandle: ...
    async def once_at(self, handler: Any, when: datetime, data: Any = None, **options: Unpack[Options]) -> JobHandle:
        """Enqueue a job that is due at that instant; an instant in the past means now. Beyond the threshold it is held
        on the master until it is near."""
        to_us("when", when)
        return await self._once(handler, data, when, options)

    @overload
    async def once_after(
        self,
        handler: type[JobHandler[Data]],
        delay: timedelta,
        data: Data | Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> JobHandle: ...
    @overload
    async def once_after(
        self,
        handler: ContextFunction[Data],
        delay: timedelta,
        data: Data | Mapping[str, Any] | None = None,
        **options: Unpack[Options],
    ) -> JobHandle: ...
    @overload
    async def once_after(
        self, handler: Reference, delay: timedelta, data: Mapping[str, Any] | None = None, **options: Unpack[Options]
    ) -> JobHandle: ...
    async def once_after(
        self, handler: Any, delay: timedelta, data: Any = None, **options: Unpack[Options]
    ) -> JobHandle:
        """Enqueue a job that is due after that time. Otherwise as `once_at`."""
        delay_us("delay", delay, self._placing.now_us())
        return await self._once(handler, data, delay, options)

    async def call(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> JobHandle:
        """Enqueue the call of a registered function or method with these arguments, which are checked against its
        signature. For options use `once_now(function, {"argument": value}, …)`."""
        data = self._registry.resolve(function).bind(arguments, keywords)
        return await self._once(function, data, None, {})

    async def many(self, items: Iterable[Enqueue] | AsyncIterable[Enqueue]) -> JobHandles:
        """Enqueue all items, in chunks of some thousand, each stored as one batch per agent; never more than one chunk
        is held. An error is noted with how many items before its chunk are stored."""
        ids: list[str] = []
        placed: list[str | None] = []
        async for chunk_ids, chunk_agents in self._writing.many(items):
            ids += chunk_ids
            placed += chunk_agents
        return JobHandles(ids, placed, self)

    async def _once(self, handler: Any, data: Any, when: datetime | timedelta | None, options: Options) -> JobHandle:
        job_id, agent = await self._writing.one(Enqueue(handler, data, when=when, **options))
        return JobHandle(job_id, self, agent)

    @overload
    async def recurring(
        self,
        handler: type[JobHandler[Data]],
        when: timedelta,
        data: Data | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo: ...
    @overload
    async def recurring(
        self,
        handler: ContextFunction[Data],
        when: timedelta,
        data: Data | Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo: ...
    @overload
    async def recurring(
        self,
        handler: Reference,
        when: timedelta,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo: ...
    async def recurring(
        self,
        handler: Any,
        when: timedelta,
        data: Any = None,
        *,
        key: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> ScheduleInfo:
        """Have a job made every `when`, at least a second, the first one interval from now. The `key` names the
        schedule: the same key again updates it in place, and keeps its rhythm."""
        recipe = await self._definitions.recipe(handler)
        schedule = await self._recurring.save(recipe, when, data, key, options)
        self._wake()
        return schedule_info(schedule)

    async def schedules(self) -> "tuple[ScheduleInfo, ...]":
        """All schedules, by key."""
        return tuple(schedule_info(schedule) for schedule in await self._master.schedules())

    async def end_schedule(self, key: str) -> bool:
        """No further job of it is made; whether it was there and active."""
        ended = await self._master.end_schedule(check_key("schedule key", key))
        self._wake()
        return ended

    def handle(self, job_id: JobId) -> JobHandle:
        """The handle of a job whose id is known."""
        return JobHandle(job_id_of(job_id), self)

    async def result(self, job_id: JobId, timeout: float | None = None, *, near: str | None = None) -> Any:  # noqa: ASYNC109 - a timeout here is an answer
        """As `JobHandle.result`; `near` is the agent to ask first, where known."""
        return await self._asking.result(job_id_of(job_id), timeout, near)

    async def get(self, job_id: JobId) -> JobInfo:
        """The job as it stands, with its runs. Raises `JobNotFound`; `AgentUnreachable` or `MasterUnavailable` where
        only a store that did not answer could know it."""
        return await self._asking.get(job_id_of(job_id))

    async def list(
        self,
        *,
        state: JobState | str | Iterable[JobState | str] | None = None,
        handler: type[JobHandler[Any]] | Reference | None = None,
        lane: str | None = None,
        agent: str | None = None,
        schedule: str | None = None,
        tag: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Jobs that meet all conditions, newest first, without their runs; `since` is about their creation. A page may
        be short, even empty, while its `cursor` says that there is more. Raises `MasterUnavailable`."""
        name = handler if isinstance(handler, str) or handler is None else self._registry.resolve(handler).name
        where = job_filter(
            state=state,
            handler=name,
            lane=lane,
            agent=agent,
            schedule=schedule,
            tag=tag,
            metadata=metadata,
            since=since,
            limit_bytes=self._limit,
        )
        return await self._listing.page(where, cursor, limit)

    async def counts(self) -> Counts:
        """How many jobs there are per lane and state, and how long the oldest ready one has waited."""
        return await count(self._master, self._agents)

    async def cancel(self, job_id: JobId) -> CancelResult:
        """End a job that has not ended. One that is running is fenced at once, so that it can't commit, and its handler
        is stopped. Raises as `get`."""
        return await self._interventions.cancel(job_id_of(job_id))

    async def reschedule(self, job_id: JobId, when: datetime | timedelta) -> JobInfo:
        """Give a waiting job another due time: an instant, or a time from now. Raises `JobConflict` naming the state if
        it is running or has ended, else as `get`."""
        now_us = self._placing.now_us()
        due_us = now_us + delay_us("when", when, now_us) if isinstance(when, timedelta) else to_us("when", when)
        return job_info(await self._interventions.reschedule(job_id_of(job_id), max(due_us, now_us)))

    async def retry(self, job_id: JobId, *, fresh: bool = False) -> JobInfo:
        """Run a failed or cancelled job again, now. Its counters go on, so one that exhausted its attempts gets one
        more; `fresh` starts them anew. Raises `JobConflict` for a job in another state, else as `get`."""
        return job_info(await self._interventions.retry(job_id_of(job_id), fresh=fresh))

    async def delete(self, job_id: JobId) -> None:
        """Remove an ended job and its runs from the history. Raises `JobConflict` for one that has not ended."""
        await self._interventions.delete(job_id_of(job_id))
