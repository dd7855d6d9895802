"""Parsing: the messages of some subscriptions are handed to whom they are for as they are cut from what was received.

nats-py's own parser tries a pattern for each kind of line, moves what is left at every message, and calls a coroutine
with it: that is most of what a message costs. It goes on doing so for all else: greetings, pings, the messages of
other subscriptions.
"""

from collections.abc import Callable
from inspect import signature
from typing import Any

from nats.protocol.parser import Parser

from jobmaster_agents.nats.messages import Message

Taker = Callable[[Message], None]
Takers = dict[bytes, Taker]
"""By the number of the subscription, as the wire has it."""

_MESSAGES = frozenset({b"MSG", b"HMSG"})
LARGE = 65_536
"""A message of which so much is missing is put together by nats-py: here, all of it is copied at every arrival."""


def is_known(parser: Parser) -> bool:
    """Whether nats-py's parser keeps what it has not read yet where it is looked for here."""
    known = tuple(signature(Parser.parse).parameters) == ("self", "data")
    return known and isinstance(getattr(parser, "buf", None), bytearray) and hasattr(parser, "state")


class TakingParser(Parser):
    """As nats-py's, with some messages taken."""

    def __init__(self, client: Any, takers: Takers) -> None:
        super().__init__(client)
        self._takers = takers
        self._between: object = self.state
        """What it is while no message is half read."""

    async def parse(self, data: bytes = b"") -> None:
        if self.state == self._between:
            if self.buf:
                data = bytes(self.buf) + data
                self.buf.clear()
            at, stopped = self._take(data)
            data = data[at:]
            if not stopped:
                self.buf.extend(data)
                return
        await super().parse(data)

    def _take(self, data: bytes) -> tuple[int, bool]:
        """Hand out what stands whole at the head of this. How much of it that was, and whether something follows that
        is not ours to read."""
        takers, size, at = self._takers, len(data), 0
        while (end := data.find(b"\r\n", at)) >= 0:
            # MSG <subject> <sid> [reply] <size>, or HMSG <subject> <sid> [reply] <size of the headers> <size of all>.
            words = data[at:end].split()
            taker = takers.get(words[2]) if len(words) > 3 and words[0] in _MESSAGES else None
            if taker is None:
                return at, True
            begin = middle = end + 2
            headed = words[0] == b"HMSG"
            try:
                stop = begin + int(words[-1])
                if headed:
                    middle += int(words.pop(-2))
            except ValueError:
                return at, True
            if stop + 2 > size:
                return at, stop - size > LARGE
            head = data[begin:middle] if headed else None
            taker(Message(words[1], words[3] if len(words) == 5 else b"", data[middle:stop], head))
            at = stop + 2
        return at, False
