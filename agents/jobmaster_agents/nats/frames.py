"""Frames: many requests in one write, and answers taken straight from the wire.

The one place that touches what nats-py keeps to itself. Its public `publish` and `request` cost a task switch, a future
and a header dictionary each, its subscriptions a queue and a task switch per message: three times the price of the
message. A nats-py in which something of that is gone or has changed is used as everybody uses it, slower.
"""

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from jobmaster_agents.nats.messages import Message, parse_head
from jobmaster_agents.nats.parsing import Taker, Takers, TakingParser, is_known

Drop = Callable[[], Awaitable[None]]


Publish = tuple[str, bytes, str, bytes]
"""Subject, payload, where to answer, headers as the wire has them."""

PRIVATE = {
    "_process_msg": ("self", "sid", "subject", "reply", "data", "headers"),
    "_send_command": ("self", "cmd", "priority"),
    "_flush_pending": ("self", "force_flush"),
}
"""What is used of nats-py's own methods, and their parameters."""
PRIVATE_STATE = ("_pending", "_pending_data_size", "_ps", "_transport")


class Connection(Client):
    """A client that hands the messages of some subscriptions to whom they are for at once, and sends many in one
    write."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: Takers = {}
        known = all(map(_is_known, PRIVATE)) and all(hasattr(self, name) for name in PRIVATE_STATE)
        self.direct = known and is_known(self._ps)
        """Whether this nats-py is the one that is known; else its public calls are used."""
        if self.direct:
            self._process_msg = self._hand_out  # type: ignore[method-assign]
            self._ps = TakingParser(self, self._takers)

    async def take(self, subject: str, taker: Taker) -> Drop:
        """From now on, `taker` gets every message on that subject. It must neither wait nor raise."""

        async def called(message: Msg) -> None:
            headers = message.headers or {}
            first = f"NATS/1.0 {headers['Status']}" if "Status" in headers else "NATS/1.0"
            lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
            head = "\r\n".join([*lines, "", ""]).encode()
            taker(Message(message.subject.encode(), message.reply.encode(), message.data, head))

        subscription = await self.subscribe(subject, cb=called, pending_msgs_limit=1_000_000, pending_bytes_limit=0)
        own: int | None = getattr(subscription, "_id", None) if self.direct else None
        number = b"%d" % (own or 0)
        if own is not None:
            self._takers[number] = taker

        async def drop() -> None:
            self._takers.pop(number, None)
            await subscription.unsubscribe()

        return drop

    async def write(self, data: bytes) -> None:
        """Send it, behind all that was sent before."""
        transport = self._transport
        if self.is_connected and not self._pending and transport is not None:
            try:
                transport.write(data)
            except (OSError, RuntimeError):
                pass  # closed under our hands: it waits with the rest, until that is heard of
            else:
                return
        await self._send_command(data)
        await self._flush_pending()

    async def _hand_out(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        taker = self._takers.get(b"%d" % sid)
        if taker is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            taker(Message(subject, reply, data, headers or None))


def header_block(*pairs: tuple[str, str]) -> bytes:
    """A block of headers as the wire has it."""
    lines = [f"{name}: {value}\r\n" for name, value in pairs]
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


def frame(subject: str, payload: bytes = b"", *, reply: str = "", headers: bytes = b"") -> bytes:
    """One publish as the wire has it."""
    if headers:
        head = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(payload)}\r\n".encode()
        return b"%b%b%b\r\n" % (head, headers, payload)
    return b"%b%b\r\n" % (f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload)


async def send(client: Connection, publishes: Sequence[Publish]) -> None:
    """Hand these messages to the connection, in order, in one write."""
    if client.direct:
        frames = [
            frame(subject, payload, reply=reply, headers=headers) for subject, payload, reply, headers in publishes
        ]
        await client.write(b"".join(frames))
        return
    # On a connection that broke just now: not sent, and never answered.
    with contextlib.suppress(Error):
        for subject, payload, reply, headers in publishes:
            await client.publish(subject, payload, reply, headers=parse_head(headers) if headers else None)


def discard_unsent(client: Connection) -> None:
    """Forget what waits for a connection: nobody is told of it any more, so nobody may find it done later. By public
    calls that can't be done; what is sent late then is refused where it matters, by its compare-and-set."""
    if client.direct:
        client._pending = []  # noqa: SLF001
        client._pending_data_size = 0  # noqa: SLF001


def _is_known(name: str) -> bool:
    method = getattr(Client, name, None)
    return method is not None and tuple(inspect.signature(method).parameters) == PRIVATE[name]
