"""A daemon thread with an event loop of its own that runs one `Loop`: the lease keeper's."""

import asyncio
import contextlib
import threading

from jobmaster.loop import Loop


class KeeperThread:
    """Runs the loop from `start` to `stop`, both called on the worker's event loop."""

    def __init__(self, loop: Loop, name: str) -> None:
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name=f"jobmaster-keeper-{name}", daemon=True)
        self._own: asyncio.AbstractEventLoop | None = None
        self._enough: asyncio.Event | None = None
        self._ready = threading.Event()
        self._owner: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    def start(self) -> None:
        """The loop runs once this returns."""
        self._owner = asyncio.get_running_loop()
        self._ended = self._owner.create_future()
        self._thread.start()
        self._ready.wait()

    async def stop(self) -> None:
        """The loop has stopped and the thread ended. Tolerates never-started, and twice."""
        if self._ended is None or self._own is None or self._enough is None:
            return
        if not self._ended.done():
            with contextlib.suppress(RuntimeError):  # the thread is through already
                self._own.call_soon_threadsafe(self._enough.set)
            await self._ended
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        finally:
            self._ready.set()
            owner, ended = self._owner, self._ended
            assert owner is not None
            assert ended is not None
            with contextlib.suppress(RuntimeError):  # the worker's loop is closed: nobody waits
                owner.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

    async def _main(self) -> None:
        self._own, self._enough = asyncio.get_running_loop(), asyncio.Event()
        self._loop.start()
        self._ready.set()
        await self._enough.wait()
        await self._loop.stop()
