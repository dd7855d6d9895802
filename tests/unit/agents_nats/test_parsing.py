"""What comes over the wire reaches whom it is for, in order and whole, wherever it was cut on its way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from jobmaster_agents.nats import parsing
from jobmaster_agents.nats.messages import Message
from jobmaster_agents.nats.parsing import TakingParser

OURS, THEIRS = 7, 70


class Client:
    """Notes what nats-py's parser would have told it."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.heard.append((sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.heard.append("ping")

    def take(self, message: Message) -> None:
        self.heard.append((OURS, message.on, message.to, message.data, message.head))


def wire(event: object) -> bytes:
    if not isinstance(event, tuple):
        return b"PING\r\n"
    sid, subject, reply, data, head = event
    to = reply + b" " if reply else b""
    if head is None:
        return b"MSG %b %d %b%d\r\n%b\r\n" % (subject, sid, to, len(data), data)
    return b"HMSG %b %d %b%d %d\r\n%b%b\r\n" % (subject, sid, to, len(head), len(head) + len(data), head, data)


_payloads = st.binary(max_size=40) | st.sampled_from([b"", b"\r\n", b"MSG a 7 1\r\nx\r\n", b"PING\r\n"])
_heads = st.none() | st.sampled_from([b"NATS/1.0 404\r\n\r\n", b"NATS/1.0\r\nNats-Sequence: 7\r\n\r\n"])
_messages = st.tuples(
    st.sampled_from([OURS, THEIRS]),
    st.sampled_from([b"a.b", b"inbox.1"]),
    st.sampled_from([b"", b"r.1"]),
    _payloads,
    _heads,
)
_events = st.lists(_messages | st.just("ping"), max_size=12)


@pytest.mark.asyncio
@pytest.mark.parametrize("large", [0, parsing.LARGE])
@given(events=_events, cuts=st.lists(st.integers(1, 25), min_size=1, max_size=6))
async def test_everything_comes_in_order_however_it_was_cut(large: int, events: list[object], cuts: list[int]) -> None:
    client = Client()
    parser = TakingParser(client, {b"%d" % OURS: client.take})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "LARGE", large)
        left, turn = b"".join(map(wire, events)), 0
        while left:
            size = cuts[turn % len(cuts)]
            await parser.parse(left[:size])
            left, turn = left[size:], turn + 1

    assert client.heard == events


@pytest.mark.asyncio
async def test_ours_are_not_left_to_the_slow_way() -> None:
    client = Client()
    parser = TakingParser(client, {b"%d" % OURS: client.take})
    client._process_msg = None  # type: ignore[assignment,method-assign]

    for part in (b"MSG a 7 1\r\nx\r\nMSG a ", b"7 2\r\nxy", b"\r\n"):
        await parser.parse(part)

    assert [message[3] for message in client.heard if isinstance(message, tuple)] == [b"x", b"xy"]


@pytest.mark.asyncio
async def test_a_line_that_makes_no_sense_is_refused() -> None:
    client = Client()
    with pytest.raises(ProtocolError):
        await TakingParser(client, {b"7": client.take}).parse(b"MSG a 7 many\r\nx\r\n")
