"""A TCP proxy before a server that stops passing bytes for a while and then goes on, as a network that is cut does."""

import asyncio
import contextlib
from urllib.parse import urlsplit


class StallingProxy:
    """Passes everything on until `stall`; from then on nothing, no byte, no end of a connection and no new one, until
    `go_on`. What was sent meanwhile arrives then: a COMMIT may come seconds after who sent it gave up."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.held_up = 0
        """Pieces that had to wait."""

    async def start(self) -> str:
        """Listen; gives the URL to connect to."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = f"{self._url.username}@" if self._url.username else ""
        return self._url._replace(netloc=f"{user}127.0.0.1:{port}").geturl()

    def stall(self) -> None:
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            await self._passable()
            there, back = await asyncio.open_connection(self._url.hostname, self._url.port or 5432)
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        except (asyncio.CancelledError, OSError):
            return
        finally:
            for end in (writer, back):
                if end is not None:
                    end.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self._passable()
                writer.write(data)
                await writer.drain()
        await self._passable()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _passable(self) -> None:
        self.held_up += not self._open.is_set()
        await self._open.wait()
