"""Requests that are sent while others are still being made."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from jobmaster_agents.nats import connection
from jobmaster_agents.nats.connection import Link, Request
from jobmaster_agents.nats.frames import Publish
from jobmaster_agents.nats.messages import Message

pytestmark = pytest.mark.asyncio


class Wire:
    """A connection on which everything is answered when the event loop runs next, until it is lost."""

    def __init__(self, link: Link) -> None:
        self.is_closed = False
        self.is_connected = True
        self.direct = False
        self.sent: list[str] = []
        self._link = link

    def take(self, publishes: Sequence[Publish]) -> None:
        for subject, payload, reply, _ in publishes:
            self.sent.append(subject)
            message = Message(reply.encode(), b"", payload, None)
            asyncio.get_running_loop().call_soon(self._link._heard, message)


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    link = Link("transport-1", ["nats://127.0.0.1:1"], {})
    wire = Wire(link)
    monkeypatch.setattr(link, "client", wire)
    monkeypatch.setattr(link, "_inbox", "inbox")
    monkeypatch.setattr(connection, "MADE", 2)

    async def send(client: Any, publishes: Sequence[Publish]) -> None:
        wire.take(publishes)

    monkeypatch.setattr(connection, "send", send)
    return link


def answers(found: Sequence[Message | None]) -> list[bytes | None]:
    return [None if one is None else one.data for one in found]


async def test_the_first_are_sent_before_the_last_are_made(link: Link) -> None:
    sent_by_then = []

    def made() -> Iterator[Request]:
        for number in range(5):
            sent_by_then.append(len(link.client.sent))  # type: ignore[attr-defined]
            yield f"s{number}", b"", b"%d" % number

    assert answers(await link.ask_as_made(5, made())) == [b"0", b"1", b"2", b"3", b"4"]
    assert sent_by_then == [0, 0, 2, 2, 4]


async def test_none_is_sent_once_the_connection_was_lost_and_all_are_made(link: Link) -> None:
    made_of: list[int] = []

    def made() -> Iterator[Request]:
        for number in range(5):
            if number == 2:
                asyncio.get_running_loop().create_task(link._broken())
            made_of.append(number)
            yield f"s{number}", b"", b"%d" % number

    found = await asyncio.wait_for(link.ask_as_made(5, made()), 10)

    # Those on their way when it was lost may have been answered; nothing went out afterwards.
    assert answers(found) == [b"0", b"1", b"2", b"3", None]
    assert link.client.sent == ["s0", "s1", "s2", "s3"]  # type: ignore[attr-defined]
    assert made_of == [0, 1, 2, 3, 4]
