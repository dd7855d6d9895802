"""A TCP proxy before a database that loses one client's connection at a chosen point of its next statement."""

import asyncio
import contextlib
from typing import Protocol
from urllib.parse import urlsplit

COMMAND_COMPLETE, READY_FOR_QUERY, IDLE = b"C"[0], b"Z"[0], b"I"[0]


class Blocker(Protocol):
    """Sees to it that the server ends a session in the middle of what it was asked."""

    def block(self) -> None:
        """Let nobody come further than here."""
        ...

    async def end_blocked(self) -> None:
        """Wait until somebody is held up, end his session, and unblock."""
        ...


class CuttingProxy:
    """Passes everything on until `cut_at` was called. `before`: the next request is not passed on. `during`: it is, and
    the blocker ends it. `after`: it was committed, and its answer is not passed on. After that one cut everything is
    passed on again, on new connections."""

    default_port = 5432
    query = "sslmode=disable"
    """Offered encryption, the server would begin with an answer that is not a message."""

    def __init__(self, url: str, blocker: Blocker) -> None:
        self._url = urlsplit(url)
        self._blocker = blocker
        self._point: str | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Future[None] | None = None

    async def start(self) -> str:
        """Listen; gives the URL to connect to."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        user = f"{self._url.username}@" if self._url.username else ""
        return self._url._replace(netloc=f"{user}127.0.0.1:{port}", query=self.query).geturl()

    def cut_at(self, point: str) -> None:
        self._point = point

    async def close(self) -> None:
        if self._ending is not None:
            await self._ending
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            there, back = await asyncio.open_connection(self._url.hostname, self._url.port or self.default_port)
            ways = [
                asyncio.ensure_future(self._requests(reader, back)),
                asyncio.ensure_future(self._answers(there, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # First, as this may be cancelled while it waits.
                for end in (writer, back):
                    end.transport.abort()
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self._point == "before":
                self._point = None
                return
            if self._point == "during":
                self._point = None
                self._blocker.block()
                self._ending = asyncio.ensure_future(self._blocker.end_blocked())
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Read message by message: whether a statement is done is in the type of one and the status in another.
        done = False
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
                done = done or head[0] == COMMAND_COMPLETE
                if head[0] == READY_FOR_QUERY:
                    if done and body[0] == IDLE and self._point == "after":
                        self._point = None
                        return
                    done = False
                writer.write(head + body)
                if head[0] == READY_FOR_QUERY or reader.at_eof():
                    await writer.drain()


class MysqlCuttingProxy(CuttingProxy):
    """The same before a MySQL or MariaDB. There a COMMIT is a request of its own, and `during` the server is held up by
    whatever comes first."""

    default_port = 3306
    query = ""

    def __init__(self, url: str, blocker: Blocker) -> None:
        super().__init__(url, blocker)
        self._committed = False

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self._point == "before":
                self._point = None
                return
            if self._point == "during":
                self._point = None
                self._blocker.block()
                self._ending = asyncio.ensure_future(self._blocker.end_blocked())
            self._committed = self._point == "after" and data.endswith(b"COMMIT")
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if self._committed:
                self._point, self._committed = None, False
                return
            writer.write(data)
            await writer.drain()
