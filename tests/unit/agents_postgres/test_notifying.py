"""What is told is gathered, packed, and sent at most once per cooldown."""

import asyncio

import pytest

from jobmaster.model.errors import Refused
from jobmaster.model.ids import new_id
from jobmaster.testing.clock import ManualClock
from jobmaster_agents.postgres.notifying import COOLDOWN_SECONDS, LONGEST, MARK, MOST_ENDS, WATCHED, Notifier, mark

pytestmark = pytest.mark.asyncio


class Wire:
    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.broken = False

    async def send(self, messages: list[str]) -> None:
        if self.broken:
            raise Refused("the connection is gone")
        self.sent.append(messages)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_first_goes_at_once_and_the_rest_together() -> None:
    wire, clock = Wire(), ManualClock()
    notifier = Notifier(wire.send, clock)
    notifier.start()

    notifier.tell_lanes({"a"})
    await turns()
    assert wire.sent == [["la"]]
    notifier.tell_lanes({"a"})
    notifier.tell_lanes({"b"})
    notifier.tell(WATCHED)
    await turns()
    assert len(wire.sent) == 1
    clock.advance(COOLDOWN_SECONDS)
    await turns()
    [_, second] = wire.sent
    assert sorted(second, key=len) == [WATCHED, *([*{"la,b", "lb,a"} & set(second)])]
    clock.advance(COOLDOWN_SECONDS)
    await turns()
    assert len(wire.sent) == 2

    notifier.tell_lanes({"c"})
    await turns()
    assert wire.sent[2:] == [["lc"]]
    await notifier.stop()


async def test_a_message_is_never_longer_than_the_server_takes() -> None:
    wire, clock = Wire(), ManualClock()
    notifier = Notifier(wire.send, clock)
    notifier.start()
    lanes = {f"{number:048}" for number in range(400)}
    ids = [new_id() for _ in range(MOST_ENDS)]

    notifier.tell_lanes(lanes)
    notifier.tell_ends(ids)
    await turns()

    [messages] = wire.sent
    assert max(map(len, messages)) <= LONGEST + 1
    told = [lane for message in messages if message[0] == "l" for lane in message[1:].split(",")]
    assert sorted(told) == sorted(lanes)
    marks = "".join(message[1:] for message in messages if message[0] == "e")
    assert [marks[at : at + MARK] for at in range(0, len(marks), MARK)] == list(map(mark, ids))
    await notifier.stop()


async def test_too_many_ends_are_told_as_one() -> None:
    wire, clock = Wire(), ManualClock()
    notifier = Notifier(wire.send, clock)
    notifier.start()

    for _ in range(MOST_ENDS + 1):
        notifier.tell_ends([new_id()])
    await turns()

    assert wire.sent == [["*"]]
    await notifier.stop()


async def test_what_can_not_be_sent_is_lost_and_later_things_are_not() -> None:
    wire, clock = Wire(), ManualClock()
    notifier = Notifier(wire.send, clock)
    notifier.tell_lanes({"before"})
    notifier.start()
    wire.broken = True
    notifier.tell_lanes({"a"})
    await turns()
    wire.broken = False
    clock.advance(COOLDOWN_SECONDS)
    await turns()

    notifier.tell_lanes({"b"})
    await turns()

    assert wire.sent == [["lb"]]
    await notifier.stop()
    notifier.tell_lanes({"c"})
    await turns()
    assert wire.sent == [["lb"]]
