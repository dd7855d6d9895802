"""Enqueuing: the calls that make jobs, the same for a scheduler and for a transaction of the caller's own."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from jobmaster.client.times import delay_us, to_us
from jobmaster.client.writing import Writing
from jobmaster.enqueue import Enqueue, Options
from jobmaster.handle import JobHandle, JobHandles
from jobmaster.handler import JobHandler
from jobmaster.registry import Registry
from jobmaster.worker.context import JobContext

if TYPE_CHECKING:
    from jobmaster.scheduler import Scheduler

Data = TypeVar("Data")
ContextFunction = Callable[[JobContext[Data]], Any]
"""A function with `@job` that takes nothing but the job."""
Reference = Callable[..., Any] | str
"""A registered function or method, or the stored name of a handler whose code need not be here."""


class Enqueuing(ABC):
    """Whatever the first argument of an enqueue, its data are checked before anything is written."""

    _registry: Registry
    _writing: Writing

    @property
    @abstractmethod
    def _scheduler(self) -> "Scheduler":
        """Who is asked about the jobs."""

    @abstractmethod
    def _now_us(self) -> int:
        """Now, in no store's future."""

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
        delay_us("delay", delay, self._now_us())
        return await self._once(handler, data, delay, options)

    async def call(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> JobHandle:
        """Enqueue the call of a registered function or method with these arguments, which are checked against its
        signature. For options use `once_now(function, {"argument": value}, …)`."""
        data = self._registry.resolve(function).bind(arguments, keywords)
        return await self._once(function, data, None, {})

    async def many(self, items: Iterable[Enqueue] | AsyncIterable[Enqueue]) -> JobHandles:
        """Enqueue all items, in chunks of some thousand, each stored as one batch per agent; never more than two chunks
        are held, one being written and the next. An error is noted with how many items before its chunk are stored."""
        ids: list[str] = []
        placed: list[str | None] = []
        async for chunk_ids, chunk_agents in self._writing.many(items):
            ids += chunk_ids
            placed += chunk_agents
        return JobHandles(ids, placed, self._scheduler)

    async def _once(self, handler: Any, data: Any, when: datetime | timedelta | None, options: Options) -> JobHandle:
        job_id, agent = await self._writing.one(Enqueue(handler, data, when=when, **options))
        return JobHandle(job_id, self._scheduler, agent)
