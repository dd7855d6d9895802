"""Link: one connection to the servers, and what its errors mean.

A request goes out only on a live connection and every wait is bounded. What was not sent is `AgentUnreachable`;
an answer that did not come is None, and the caller finds out by reading.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

from nats.errors import Error

from jobmaster.model.errors import AgentUnreachable, Refused
from jobmaster_agents.nats.frames import Connection, Drop, discard_unsent, send
from jobmaster_agents.nats.messages import Message

PATIENCE = 5.0
"""Seconds an answer may take."""
OPENING_SECONDS = 5.0
"""How long the first connection may take, to whichever of the servers."""
MOMENT = 0.5
"""Seconds that a call waits for a connection that is being made anew."""
CONNECT_SECONDS = 5.0
RECONNECT_SECONDS = 0.2
_AGAIN_SECONDS = 0.1
MADE = 250
"""Requests that are made before they are sent, of those that take time to make."""

Request = tuple[str, bytes, bytes]
"""Subject, headers, payload."""
Asked = Callable[[], Awaitable[list[Message | None]]]
"""Waits for the answers."""


class Link:
    """A connection on one event loop."""

    def __init__(self, agent: str, servers: Sequence[str], options: dict[str, Any]) -> None:
        self.agent = agent
        self.client = Connection()
        self._servers = list(servers)
        self._options = options
        self._inbox = ""
        self._number = 0
        self._waiting: dict[int, _Window | _Series] = {}
        self._slots: list[_Slot] = []
        self._pulling: set[_Series] = set()
        self._trouble: Exception | None = None
        self._again = asyncio.Event()
        """There is a connection after one was lost."""
        self.breaks = 0
        """How often the connection was lost."""

    async def open(self) -> None:
        """Raises `AgentUnreachable`."""
        try:
            # Told to try for ever when a connection is lost, nats-py does so for the first one, too.
            await _within(
                OPENING_SECONDS,
                self.client.connect(
                    servers=self._servers,
                    connect_timeout=int(CONNECT_SECONDS),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]
                    ping_interval=5,
                    max_outstanding_pings=2,
                    pending_size=0,
                    disconnected_cb=self._broken,
                    reconnected_cb=self._whole,
                    error_cb=self._noted,
                    **self._options,
                ),
            )
        except (OSError, Error, TimeoutError) as error:
            with contextlib.suppress(Exception):
                await self.client.close()
            said = self._trouble if isinstance(error, TimeoutError) and self._trouble is not None else error
            raise self.unreachable(f"{type(said).__name__}: {said}".rstrip(": ")) from error
        self._inbox = self.client.new_inbox()
        await self.client.take(f"{self._inbox}.>", self._heard)

    async def close(self) -> None:
        """Never raises."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(PATIENCE):
                await self.client.close()
        await self._broken()

    def unreachable(self, problem: str) -> AgentUnreachable:
        return AgentUnreachable(self.agent, problem, "is the NATS server up, and the URL right?")

    async def ask(
        self, subject: str, payload: bytes = b"", *, headers: bytes = b"", within: float = PATIENCE
    ) -> Message:
        """The one answer. `AgentUnreachable` if the request was not sent or stayed without answer: for what changes
        nothing, or may be repeated."""
        [answer] = await self.ask_all([(subject, headers, payload)], within=within)
        if answer is None:
            raise self.unreachable(f"no answer to {subject} within {within:g} s")
        return answer

    async def ask_all(self, requests: Sequence[Request], *, within: float = PATIENCE) -> list[Message | None]:
        """One answer each, in their order; None where none came, after that many seconds of silence.
        `AgentUnreachable` if nothing was sent."""
        if not requests:
            return []
        async with self.asking(requests, within=within) as answers:
            return await answers()

    @asynccontextmanager
    async def asking(self, requests: Sequence[Request], *, within: float = PATIENCE) -> AsyncIterator[Asked]:
        """As `ask_all`: sent at once, and waited for when that is called. What is asked meanwhile costs no round trip
        of its own."""
        await self.check()
        window = _Window(len(requests))
        key = self._key(window)
        inbox = f"{self._inbox}.{key}."

        async def answers() -> list[Message | None]:
            await window.wait(within)
            return window.answers

        try:
            await send(
                self.client,
                [
                    (subject, payload, f"{inbox}{number}", headers)
                    for number, (subject, headers, payload) in enumerate(requests)
                ],
            )
            yield answers
        finally:
            del self._waiting[key]

    async def ask_as_made(
        self, size: int, requests: Iterator[Request], *, within: float = PATIENCE
    ) -> list[Message | None]:
        """As `ask_all`, for so many requests that take time to make: some are sent before the next are made, and the
        server works meanwhile. All are made, and none is sent any more once the connection was lost."""
        await self.check()
        window = _Window(size)
        key = self._key(window)
        inbox = f"{self._inbox}.{key}."
        number = 0
        try:
            while frames := [
                (subject, payload, f"{inbox}{number + place}", headers)
                for place, (subject, headers, payload) in enumerate(islice(requests, MADE))
            ]:
                if self.client.is_connected and not window.complete.done():
                    await send(self.client, frames)
                    await asyncio.sleep(0)
                number += len(frames)
            await window.wait(within)
        finally:
            del self._waiting[key]
        return window.answers

    async def ask_grouped(
        self, groups: Sequence[Sequence[Request]], *, within: float = PATIENCE
    ) -> list[Message | None]:
        """As `ask_all`, for groups of which only the last request is answered, for all of its group."""
        await self.check()
        window = _Window(len(groups))
        key = self._key(window)
        frames = [
            (subject, payload, f"{self._inbox}.{key}.{number}" if request is group[-1] else "", headers)
            for number, group in enumerate(groups)
            for request in group
            for subject, headers, payload in (request,)
        ]
        try:
            await send(self.client, frames)
            await window.wait(within)
        finally:
            del self._waiting[key]
        return window.answers

    async def ask_series(self, subject: str, payload: bytes, *, within: float = PATIENCE) -> "Answers":
        """All messages up to the one with a status, or `within`."""
        [answers] = await self.ask_all_series([(subject, b"", payload)], within=within)
        return answers

    async def ask_all_series(self, requests: Sequence[Request], *, within: float = PATIENCE) -> list["Answers"]:
        """Several of them at once."""
        if not requests:
            return []
        await self.check()
        series = [_Series() for _ in requests]
        keys = [self._key(each) for each in series]
        frames = [
            (subject, payload, f"{self._inbox}.{key}.0", headers)
            for key, (subject, headers, payload) in zip(keys, requests, strict=True)
        ]
        try:
            await send(self.client, frames)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    for each in series:
                        await each.complete
        finally:
            for key in keys:
                del self._waiting[key]
        return [Answers(each.messages, each.status, each.pending) for each in series]

    async def pull(self, requests: Sequence[tuple[Request, int]], *, within: float = PATIENCE) -> list["Answers"]:
        """Deliveries of consumers, for each (request, most) up to its status or that many. A delivery has its job's
        subject, not that of the inbox it was sent to, so each request has a subscription of its own while it lasts."""
        await self.check()
        slots = [self._slots.pop() if self._slots else await self._new_slot() for _ in requests]
        series = [slot.begin(most) for slot, (_, most) in zip(slots, requests, strict=True)]
        frames = [
            (subject, payload, slot.inbox, headers)
            for slot, ((subject, headers, payload), _) in zip(slots, requests, strict=True)
        ]
        self._pulling.update(series)
        try:
            await send(self.client, frames)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    for each in series:
                        await each.complete
        finally:
            self._pulling.difference_update(series)
            for slot, each in zip(slots, series, strict=True):
                if each.ended:
                    self._slots.append(slot)
                else:
                    # What comes late may not be taken for an answer to the next request.
                    await slot.drop()
        return [Answers(each.messages, each.status, each.pending) for each in series]

    async def _new_slot(self) -> "_Slot":
        slot = _Slot(self.client.new_inbox())
        slot.dropped = await self.client.take(slot.inbox, slot.heard)
        return slot

    async def tell(self, requests: Sequence[Request]) -> None:
        """Send without waiting for an answer; nothing is sent on a broken connection."""
        if requests and self.client.is_connected:
            await send(self.client, [(subject, payload, "", headers) for subject, headers, payload in requests])

    async def check(self) -> None:
        """Have a connection, one that is being made anew included, if that takes less than a moment; else
        `AgentUnreachable`. Gives way where there is none: a caller who tries at once again must not keep it away."""
        if not self._inbox or self.client.is_closed:
            raise Refused(f"agent {self.agent!r} is not open: call open() first")
        if self.client.is_connected:
            return
        # What was set speaks of an earlier loss: the client knows of this one before it tells us.
        self._again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOMENT):
                await self._again.wait()
        if not self.client.is_connected:
            raise self.unreachable("the connection is lost and being made anew")

    def _key(self, waiter: "_Window | _Series") -> int:
        self._number += 1
        self._waiting[self._number] = waiter
        return self._number

    def _heard(self, message: Message) -> None:
        _, key, number = message.on.rsplit(b".", 2)
        waiter = self._waiting.get(int(key))
        if waiter is not None:
            waiter.take(int(number), message)

    async def _noted(self, error: Exception) -> None:
        """nats-py logs whole tracebacks of what reconnecting mends; callers learn of it by their own calls."""
        # A server that turns somebody away says why, and the end of the connection, which follows, says nothing.
        if self._trouble is None or not isinstance(error, OSError):
            self._trouble = error

    async def _whole(self) -> None:
        self._again.set()

    async def _broken(self) -> None:
        self._again.clear()
        self.breaks += 1
        discard_unsent(self.client)
        for waiter in (*self._waiting.values(), *self._pulling):
            waiter.give_up()


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.timeout`. Cancels until that is heard: `wait_for` of Python 3.11, in which nats-py waits while it
    connects, loses a cancellation that comes together with an answer, and the client then goes on for ever."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_AGAIN_SECONDS)
    if not done:
        with contextlib.suppress(OSError, Error, asyncio.CancelledError):
            task.result()
        raise TimeoutError
    task.result()


class Answers:
    """What a series of messages came to."""

    __slots__ = ("messages", "pending", "status")

    def __init__(self, messages: list[Message], status: str | None, pending: int) -> None:
        self.messages = messages
        self.status = status
        """The code that ended it; None: nothing did."""
        self.pending = pending
        """How many more there are beyond what was asked for."""


class _Window:
    """As many answers as there were requests."""

    def __init__(self, size: int) -> None:
        self.answers: list[Message | None] = [None] * size
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = size

    def take(self, number: int, message: Message) -> None:
        if self.answers[number] is None:
            self.answers[number] = message
            self._open -= 1
            if not self._open and not self.complete.done():
                self.complete.set_result(None)

    def give_up(self) -> None:
        if not self.complete.done():
            self.complete.set_result(None)

    async def wait(self, within: float) -> None:
        """Until every answer is there, or none has come for that long: many take their time on a slow disk."""
        seen = -1
        while not self.complete.done() and seen != self._open:
            seen = self._open
            await asyncio.wait((self.complete,), timeout=within)


class _Series:
    """Messages until one has a status, or there are as many as were asked for."""

    def __init__(self, most: int = 0) -> None:
        self.messages: list[Message] = []
        self.status: str | None = None
        self.pending = 0
        self.ended = False
        self._most = most
        self.complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, number: int, message: Message) -> None:
        status = message.status
        if status is None:
            self.messages.append(message)
            if len(self.messages) == self._most:
                self._end()
        elif status != "100":
            self.status = status
            self.pending = int(message.headers.get("Nats-Num-Pending", 0))
            self._end()

    def _end(self) -> None:
        self.ended = True
        self.give_up()

    def give_up(self) -> None:
        if not self.complete.done():
            self.complete.set_result(None)


class _Slot:
    """A subscription for one request at a time."""

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self.dropped: Drop | None = None
        self._series: _Series | None = None

    def begin(self, most: int) -> _Series:
        self._series = _Series(most)
        return self._series

    def heard(self, message: Message) -> None:
        if self._series is not None:
            self._series.take(0, message)

    async def drop(self) -> None:
        self._series = None
        if self.dropped is not None:
            with contextlib.suppress(Error):
                await self.dropped()
