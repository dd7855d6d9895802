"""Aside: verbs of a handle run on a thread of their own, from whichever event loop they are awaited.

The lease keeper's handle. Its connections belong to a loop on which nothing else runs, so neither a handler that blocks
the worker's loop nor a pool that handlers have used up delays an extend; and they are closed there, in order, however
the loops of those who used them have ended.
"""

import asyncio
import contextlib
import threading
from typing import Any, Protocol, cast

from jobmaster.contracts.agent import AgentTransport
from jobmaster.model.errors import Refused


class Connections(Protocol):
    """What the handle's verbs go through."""

    async def open(self) -> None:
        """Connect. Does nothing if it is open."""
        ...

    async def close(self) -> None:
        """Never raises."""
        ...


class Aside:
    """A thread with an event loop, started when the first verb is called."""

    def __init__(self, under: AgentTransport, connections: Connections) -> None:
        self.agent = cast("AgentTransport", _Elsewhere(self, under))
        self._connections = connections
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    async def call(self, verb: Any, *arguments: Any, **named: Any) -> Any:
        """The verb's answer, found on the thread."""
        loop = self._started()

        async def run() -> Any:
            await self._connections.open()
            return await verb(*arguments, **named)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), loop))

    async def close(self) -> None:
        """Close the connections and end the thread. Never raises; a second call does nothing."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        with contextlib.suppress(Exception):
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._connections.close(), loop))
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(self._thread.join)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                if self._closed:
                    raise Refused("the agent is closed, and this handle with it: open the agent again")
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="jobmaster-aside", daemon=True)
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


class _Elsewhere:
    """Looks like the handle; each verb is awaited here and run there."""

    def __init__(self, aside: Aside, under: AgentTransport) -> None:
        self._aside = aside
        self._under = under

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._under, name)
        if not asyncio.iscoroutinefunction(value) or name in ("open", "close"):
            return value

        async def verb(*arguments: Any, **named: Any) -> Any:
            return await self._aside.call(value, *arguments, **named)

        return verb

    def companion(self) -> Any:
        return self

    async def close(self) -> None:
        """Closed by whom it belongs to."""
