"""Listeners: user code that hears what became of jobs.

Events are emitted only after a store accepted the change they tell of. One task per runtime delivers them, outside the
slots: a slow or raising listener changes no outcome and holds nothing up. What does not fit into the queue any more is
dropped and counted, never waited for. Async callbacks run on the loop, plain ones in a thread, a batch at a time.
"""

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

import anyio.to_thread
import structlog
from msgspec import Struct

from jobmaster.model.errors import DefinitionInvalid, quoted

QUEUE_SIZE = 10_000
BATCH = 256
SLOW_SECONDS = 5.0
"""A call that takes longer is warned about; an async one is cancelled at six times that."""
REPORT_SECONDS = 60.0
"""Drops are logged at most once in this time."""

_log = structlog.get_logger("jobmaster.listeners")


class EventKind(StrEnum):
    """What happened; a listener's method is called `on_` and this."""

    ENQUEUED = "enqueued"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRY = "retry"
    CANCELLED = "cancelled"
    LATE_RESULT = "late_result"
    """A run ended after its lease: the store refused its outcome, as the job is another run's by then, or cancelled.
    What it came to is told here, logged and counted, and is kept nowhere else."""
    SATURATED = "saturated"
    """A worker's slots were all taken while more jobs waited; told when it is over, with its duration."""
    UNROUTABLE = "unroutable"
    """Jobs wait whose handler no live worker knows; `count` of them."""
    QUARANTINED = "quarantined"
    """An agent's store is not what it was, by `reason`: nothing is claimed or put there until it is reconciled."""


class JobEvent(Struct, frozen=True, kw_only=True, gc=False):
    """One fact. Fields that do not belong to its kind are None."""

    kind: EventKind
    job_id: str | None = None
    handler: str | None = None
    lane: str | None = None
    agent: str | None = None
    worker: str | None = None
    attempt: int | None = None
    error: str | None = None
    """Type and first line, with `failed`, `retry` and `late_result`."""
    reason: str | None = None
    """With `failed` and `quarantined`; with `late_result` the outcome that was refused."""
    result: bytes | None = None
    """Portable JSON, with `succeeded` and `late_result`."""
    delay_seconds: float | None = None
    """With `retry`: until the next attempt is due."""
    duration_seconds: float | None = None
    """Of the run, or of the saturation."""
    count: int | None = None


Callback = Callable[[JobEvent], Awaitable[object] | object]


def callbacks_of(listener: object) -> dict[EventKind, Callback]:
    """The `on_…` methods of an object. Raises `DefinitionInvalid` where it has none, or one nobody would call."""
    subject = f"listener {type(listener).__name__}"
    if isinstance(listener, type):
        raise DefinitionInvalid(f"listener {listener.__name__}", "it is a class", "pass an instance of it")
    methods = {f"on_{kind}": kind for kind in EventKind}
    strange = [name for name in dir(listener) if name.startswith("on_") and name not in methods]
    if strange:
        raise DefinitionInvalid(
            subject, f"nothing calls {quoted(strange[0])}", f"the methods of a listener are {', '.join(methods)}"
        )
    found: dict[EventKind, Callback] = {}
    for name, kind in methods.items():
        callback = getattr(listener, name, None)
        if callback is not None:
            if not callable(callback):
                raise DefinitionInvalid(subject, f"{name} is not callable")
            found[kind] = callback
    if not found:
        raise DefinitionInvalid(subject, "it has no method to call", f"write one of {', '.join(methods)}")
    return found


class Listeners:
    """The callbacks of one runtime and the task that serves them."""

    def __init__(self, callbacks: Mapping[EventKind, Iterable[Callback]] | None = None) -> None:
        self._callbacks = {kind: tuple(found) for kind, found in (callbacks or {}).items() if found}
        self._queue: deque[JobEvent] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._lock = threading.Lock()
        self._signalled = False
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._dropped = 0
        self._unreported = 0
        self._reported_at = float("-inf")

    @property
    def dropped(self) -> int:
        """Events that found the queue full, ever."""
        return self._dropped

    def wants(self, kind: EventKind) -> bool:
        """Whether anybody listens to this kind: ask before building an event where many happen."""
        return kind in self._callbacks

    def emit(self, event: JobEvent) -> None:
        """Hand an event over, from any thread or loop. Never blocks, never raises."""
        if event.kind not in self._callbacks:
            return
        if len(self._queue) >= QUEUE_SIZE:
            self._drop()
            return
        self._queue.append(event)
        if not self._signalled:
            self._signal()

    def start(self) -> None:
        """Begin to deliver, on the running loop. What was emitted before is delivered first."""
        if self._callbacks and self._task is None:
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._serve(), name="jobmaster listeners")
            self._signal()

    async def stop(self, timeout: float = SLOW_SECONDS) -> None:  # noqa: ASYNC109 - the task is ended, not this call
        """Deliver what is queued, for at most `timeout` seconds, and end. Tolerates never-started, and twice."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping = True
        self._signal()
        _, late = await asyncio.wait({task}, timeout=timeout)
        if late:
            _log.warning("listeners did not finish in time", undelivered=len(self._queue), seconds=timeout)
            task.cancel()
            await asyncio.wait({task}, timeout=timeout)
        self._loop = None

    def _signal(self) -> None:
        with self._lock:
            self._signalled = True
            loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:  # the loop is closed: nobody is there to deliver to
                self._loop = None

    def _drop(self) -> None:
        with self._lock:
            self._dropped += 1
            self._unreported += 1
            now = time.monotonic()
            if now - self._reported_at < REPORT_SECONDS:
                return
            dropped, self._unreported, self._reported_at = self._unreported, 0, now
        _log.warning("listeners are too slow, events were dropped", dropped=dropped, queue=QUEUE_SIZE)

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            # Cleared before the queue is read: an event put in meanwhile sets it again.
            self._wake.clear()
            self._signalled = False
            while self._queue:
                await self._deliver([self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))])
            if self._stopping:
                return

    async def _deliver(self, events: list[JobEvent]) -> None:
        plain: list[tuple[Callback, JobEvent]] = []
        for event in events:
            for callback in self._callbacks.get(event.kind, ()):
                if inspect.iscoroutinefunction(callback):
                    await self._await(callback(event), callback, event)
                else:
                    plain.append((callback, event))
        if plain:
            for callback, event, unfinished in await anyio.to_thread.run_sync(_call_all, plain):
                await self._await(unfinished, callback, event)

    async def _await(self, awaitable: Awaitable[object], callback: Callback, event: JobEvent) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(6 * SLOW_SECONDS):
                await awaitable
        # A listener that calls sys.exit() must not take the delivery of all others with it.
        except (Exception, SystemExit) as error:
            _failed(callback, event, error)
        _warn_if_slow(callback, event, time.monotonic() - began)


def _call_all(calls: list[tuple[Callback, JobEvent]]) -> list[tuple[Callback, JobEvent, Awaitable[object]]]:
    """Runs in a thread. What turns out to be awaitable goes back to the loop."""
    unfinished: list[tuple[Callback, JobEvent, Awaitable[object]]] = []
    for callback, event in calls:
        began = time.monotonic()
        try:
            answer: Any = callback(event)
            if inspect.isawaitable(answer):
                unfinished.append((callback, event, answer))
        except (Exception, SystemExit) as error:
            _failed(callback, event, error)
        _warn_if_slow(callback, event, time.monotonic() - began)
    return unfinished


def _warn_if_slow(callback: Callback, event: JobEvent, seconds: float) -> None:
    if seconds > SLOW_SECONDS:
        _log.warning("listener is slow", listener=_name(callback), event_kind=event.kind, seconds=round(seconds, 1))


def _failed(callback: Callback, event: JobEvent, error: BaseException) -> None:
    _log.error("listener failed", listener=_name(callback), event_kind=event.kind, job_id=event.job_id, exc_info=error)


def _name(callback: Callback) -> str:
    return getattr(callback, "__qualname__", type(callback).__qualname__)
