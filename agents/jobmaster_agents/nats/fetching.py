"""Fetching: deliveries of a lane, the more urgent first."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

import msgspec
from msgspec import Struct

from jobmaster_agents.nats import streams
from jobmaster_agents.nats.connection import Request
from jobmaster_agents.nats.damaged import put_away
from jobmaster_agents.nats.messages import Message
from jobmaster_agents.nats.parcels import give_back
from jobmaster_agents.nats.publisher import DEADLINE
from jobmaster_agents.nats.records import Parcel, decode_parcel
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.subjects import PRIORITIES

DEADLINE_LINE = f"\r\n{DEADLINE}: ".encode()
MOMENT_NS = 5_000_000
"""A consumer hears of a stored message a little after everybody else: who was woken by it may come too early."""


class Delivery(Struct, frozen=True, gc=False):
    """A parcel handed to this process, until it is acknowledged or its time is up."""

    parcel: Parcel
    ack: str
    seq: int
    stored_us: int
    again: bool
    """It was delivered before, to whomever."""
    deadline_us: int | None
    """Its put deadline, of a parcel that was not scheduled."""

    @property
    def id(self) -> str:
        return self.parcel.job.id

    @property
    def place(self) -> int:
        """Since when it has stood in line."""
        return self.parcel.place or self.stored_us


class Fetching:
    """Fetches for one process, which remembers at which priority each lane's backlog begins."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._first: dict[str, int] = {}

    async def fetch(self, lane: str, room: int) -> list[Delivery]:
        """Up to `room` deliveries of a lane that wait now, by priority and place in line.

        All priorities down to where the backlog began the last time are asked in one round trip: those above are
        empty as a rule, so that nothing is given back. Below it, one after the other."""
        store, first = self._store, self._first.get(lane, 0)
        groups = [PRIORITIES[: first + 1], *((priority,) for priority in PRIORITIES[first + 1 :])]
        found: list[Delivery] = []
        surplus: list[str] = []
        for group in groups:
            left = room - len(found)
            if left <= 0:
                break
            requests = [(pull(store, store.subjects.consumer(lane, each), left), left) for each in group]
            for answers in await store.link.pull(requests):
                found += sorted(await _readable(store, answers.messages), key=attrgetter("place", "seq"))
            surplus += [one.ack for one in found[room:]]
            del found[room:]
        await store.link.tell(give_back(surplus))
        if found:
            self._first[lane] = found[0].parcel.job.priority
        return found


async def fetch_at_once(store: Store, lanes: Mapping[str, int], wait_ns: int = 0) -> list[Delivery]:
    """As `fetch`, for several lanes and all priorities in one round trip: where next to nothing waits. What is more
    than a lane's room goes back."""
    asked = [(lane, priority) for lane in lanes for priority in PRIORITIES]
    requests = [
        (pull(store, store.subjects.consumer(lane, priority), lanes[lane], wait_ns), lanes[lane])
        for lane, priority in asked
    ]
    found: dict[str, list[Delivery]] = {lane: [] for lane in lanes}
    for (lane, _), answers in zip(asked, await store.link.pull(requests), strict=True):
        found[lane] += sorted(await _readable(store, answers.messages), key=attrgetter("place", "seq"))
    surplus = [one.ack for lane, room in lanes.items() for one in found[lane][room:]]
    await store.link.tell(give_back(surplus))
    return [one for lane, room in lanes.items() for one in found[lane][:room]]


def pull(store: Store, consumer: str, most: int, wait_ns: int = 0) -> Request:
    """Ask a consumer for what waits now, or comes within that time."""
    stream = store.subjects.jobs_stream
    how = b'"expires":%d' % wait_ns if wait_ns else b'"no_wait":true'
    return (
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        b"",
        b'{"batch":%d,"max_bytes":%d,%b}' % (most, streams.BURST_BYTES, how),
    )


async def _readable(store: Store, messages: Sequence[Message]) -> list[Delivery]:
    found, damaged = [], list[tuple[Message, int]]()
    for message in messages:
        try:
            found.append(_delivery(message))
        except msgspec.DecodeError:
            damaged.append((message, int(_numbers(message.reply)[0])))
    if damaged:
        await put_away(store, damaged)
    return found


def _delivery(message: Message) -> Delivery:
    ack = message.reply
    times, seq, _, stored = _numbers(ack)
    return Delivery(
        decode_parcel(message.data),
        ack,
        int(seq),
        int(stored) // 1_000,
        times != "1",
        _deadline(message.head) if message.head is not None else None,
    )


def _numbers(ack: str) -> list[str]:
    """How often it was delivered, its sequence, the consumer's, and when it was stored, in ns."""
    # … .<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>, with more around it or without.
    tokens = ack.split(".")
    return tokens[4:8] if len(tokens) == 9 else tokens[6:10]


def _deadline(head: bytes) -> int | None:
    # Looked for, not parsed: this is done for every job.
    if b"Nats-Scheduler:" in head:
        return None
    _, found, rest = head.partition(DEADLINE_LINE)
    return int(rest[: rest.index(b"\r")]) if found else None
