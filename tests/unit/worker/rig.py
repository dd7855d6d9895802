"""A worker on the memory transport, with handlers given as functions: what the tests of the worker tier share."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

import msgspec

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import OutboxRecord, Settlement
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model.detail import RunDetail, decode_detail
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job, Run
from jobmaster.model.policy import Policy
from jobmaster.settings import Limits, Timings, WorkerSettings
from jobmaster.testing.clock import ManualClock
from jobmaster.worker.context import JobContext
from jobmaster.worker.worker import Worker
from jobmaster_agents.memory import MemoryAgent
from tests.support import eventually

Function = Callable[[JobContext[Any]], Awaitable[Any]]
FOREVER_US = 10**15


class JsonSchema:
    """Data as it was stored."""

    def decode(self, raw: bytes, /) -> Any:
        return msgspec.json.decode(raw)


class FunctionHandler:
    """One async function as a handler."""

    def __init__(self, function: Function) -> None:
        self.schema = JsonSchema()
        self.blocking = False
        self.version = 1
        self.function = function

    def read(self, raw: bytes, version: int, /) -> Any:
        return {"upcast from": version, "data": self.schema.decode(raw)}

    def invoke(self, context: JobContext[Any], /) -> Awaitable[Any]:
        return self.function(context)


class Functions:
    """A registry of functions."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self._handlers = {name: FunctionHandler(function) for name, function in functions.items()}
        self.names = frozenset(functions)

    def get(self, name: str, /) -> FunctionHandler | None:
        return self._handlers.get(name)


class RecordingListeners(Listeners):
    """Keeps what is emitted."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[JobEvent] = []

    def wants(self, kind: EventKind) -> bool:
        return True

    def emit(self, event: JobEvent) -> None:
        self.events.append(event)

    def of(self, kind: EventKind) -> list[JobEvent]:
        return [event for event in self.events if event.kind is kind]


class RehearsedAgent(MemoryAgent):
    """A memory transport whose verbs may be told to fail, before or after they were applied."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__("memory:", cluster="test", name="agent", clock=clock)
        self.before: dict[str, list[Exception]] = {}
        """Raised by the next calls of a verb instead of doing anything."""
        self.after: dict[str, list[Exception]] = {}
        """Raised by the next calls of a verb once it is done."""
        self.calls: dict[str, list[Any]] = {"claim": [], "extend": [], "settle": [], "release": []}

    async def claim(self, worker: str, quotas: Mapping[str, int], *rest: Any, **more: Any) -> Any:
        return await self._rehearse(
            "claim", quotas, lambda: super(RehearsedAgent, self).claim(worker, quotas, *rest, **more)
        )

    async def extend(self, items: Sequence[Any], ttl_us: int) -> Any:
        extend = super().extend
        return await self._rehearse("extend", items, lambda: extend(items, ttl_us))

    async def settle(self, items: Sequence[Any]) -> Any:
        settle = super().settle
        return await self._rehearse("settle", items, lambda: settle(items))

    async def release(self, items: Sequence[Any]) -> Any:
        release = super().release
        return await self._rehearse("release", items, lambda: release(items))

    async def _rehearse(self, verb: str, given: Any, act: Callable[[], Awaitable[Any]]) -> Any:
        self.calls[verb].append(given)
        if self.before.get(verb):
            raise self.before[verb].pop(0)
        answer = await act()
        if self.after.get(verb):
            raise self.after[verb].pop(0)
        return answer


class Rig:
    """An open agent and one worker on it. `async with` opens and starts; the end stops hard."""

    def __init__(
        self,
        handlers: Mapping[str, Function],
        *,
        slots: int = 10,
        lanes: Mapping[str, int | None] | None = None,
        prefetch: int | None = None,
        clock: Clock | None = None,
        start: bool = True,
        limits: Limits | None = None,
        timings: Timings | None = None,
        registry: Any = None,
        agent: RehearsedAgent | None = None,
        **worker_options: Any,
    ) -> None:
        self.manual = ManualClock() if clock is None else None
        self.clock: Clock = clock or self._manual_clock()
        self.agent = agent or RehearsedAgent(self.clock)
        self.listeners = RecordingListeners()
        self.settled: list[Settlement] = []
        self.functions = Functions(handlers)
        self.registry: Any = registry or self.functions
        self._start = start
        self.worker = Worker(
            WorkerSettings(name="rig", slots=slots, lanes=lanes or {"default": None}, prefetch=prefetch),
            timings or Timings(),
            limits or Limits(),
            agent=self.agent,
            registry=self.registry,
            listeners=self.listeners,
            clock=self.clock,
            rng=random.Random(7),
            on_settled=self.settled.extend,
            **worker_options,
        )

    def _manual_clock(self) -> ManualClock:
        assert self.manual is not None
        return self.manual

    async def __aenter__(self) -> Self:
        await self.agent.open()
        if self._start:
            await self.worker.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.stop(0)
        await self.agent.close()

    def advance(self, seconds: float) -> None:
        self._manual_clock().advance(seconds)

    async def put(self, handler: str, data: Any = None, *, policy: Policy | None = None, **fields: Any) -> str:
        """Store one ready job; its id."""
        now = await self.agent.store_now_us()
        given: dict[str, Any] = {"created_us": now, "original_due_us": now, "due_us": now} | fields
        job = Job(
            id=new_id(),
            handler=handler,
            data=msgspec.json.encode(data),
            policy=(policy or Policy()).encode(),
            **given,
        )
        await self.agent.put([job], FOREVER_US * 10)
        return job.id

    async def put_many(self, handler: str, count: int, **fields: Any) -> list[str]:
        return [await self.put(handler, number, **fields) for number in range(count)]

    async def job(self, job_id: str) -> Job:
        found = (await self.agent.find([job_id]))[0]
        assert found is not None, job_id
        return found

    async def ended(self, job_id: str) -> Job:
        """The job, once terminal."""

        async def terminal() -> Job | None:
            job = await self.job(job_id)
            return job if job.terminal else None

        job = await eventually(terminal, what=f"the job {job_id} ends")
        assert job is not None
        return job

    async def records(self, job_id: str) -> list[OutboxRecord]:
        return [one for one in await self.agent.changes(10_000) if one.job is not None and one.job.id == job_id]

    async def runs(self, job_id: str) -> list[Run]:
        return [record.run for record in await self.records(job_id) if record.run is not None]

    async def run_recorded(self, job_id: str) -> tuple[Run, RunDetail]:
        """The job's first recorded run, once there is one."""
        runs = await eventually(lambda: self.runs(job_id), what=f"a run of {job_id} is recorded")
        return runs[0], decode_detail(runs[0].detail)

    async def leased(self) -> int:
        return sum(lane.leased for lane in await self.agent.stats())

    async def jobs_delayed(self) -> int:
        return sum(lane.delayed for lane in await self.agent.stats())

    async def started(self, job_id: str) -> int | None:
        """When the current run was recorded as started."""
        return (await self.job(job_id)).started_us

    async def progress(self, job_id: str) -> int | None:
        return (await self.job(job_id)).progress

    async def all_leased(self, count: int) -> bool:
        return await self.leased() == count

    async def running(self, count: int) -> None:
        """Return once so many handlers have been called and have not ended."""

        def called() -> bool:
            return sum(lease.started_us is not None for lease in self.worker._executor.running) == count

        await eventually(called, what=f"{count} handlers run")
        # Who waits for a time must have begun to, before the test moves the clock.
        for _ in range(20):
            await asyncio.sleep(0)
