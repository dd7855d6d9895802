"""Store: what the verbs of one handle share."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.values import Signal
from jobmaster.model.errors import Indeterminate, Refused
from jobmaster.model.job import Job
from jobmaster_agents.nats.connection import Link
from jobmaster_agents.nats.frames import header_block
from jobmaster_agents.nats.options import Options
from jobmaster_agents.nats.publisher import EXPECTED, Publisher, read_ack
from jobmaster_agents.nats.reader import Reader
from jobmaster_agents.nats.recall import Recall
from jobmaster_agents.nats.records import Confirmed, StoreSettings, encode, new_nonce
from jobmaster_agents.nats.streams import Consumers
from jobmaster_agents.nats.subjects import Subjects

__all__ = ["Held", "Holder", "Shared", "Signal", "Store"]

ROUNDS = 20
"""How often somebody else may be quicker."""
STALE_SECONDS = 30.0
"""How long the measured difference to the server's clock serves."""


class Holder:
    """A published hold, and how many of its leases are still open."""

    __slots__ = ("number", "open")

    def __init__(self, number: int, leases: int) -> None:
        self.number = number
        self.open = leases


class Held(Struct, gc=True):
    """A lease this process has, with what is needed to end it without asking again."""

    job: Job
    """As claimed."""
    token: int
    seq: int
    """Of the record the lease stands on: what the outcome's compare-and-set expects."""
    counter: int
    message: int
    first: int
    ack: str
    holder: Holder


class Shared:
    """What a handle and its companion share, across threads."""

    def __init__(self) -> None:
        self.incarnation = ""
        self.owner = f"{new_nonce():x}"
        self.held: dict[str, Held] = {}
        self.recall = Recall()
        self.lock = threading.Lock()
        self._holds = 0

    def new_holder(self, leases: int) -> Holder:
        with self.lock:
            self._holds += 1
            return Holder(self._holds, leases)

    def let_go(self, ids: Iterable[str]) -> list[Holder]:
        """These leases ended; the holds that have none left."""
        empty = []
        with self.lock:
            for job_id in ids:
                held = self.held.pop(job_id, None)
                if held is not None:
                    held.holder.open -= 1
                    if not held.holder.open:
                        empty.append(held.holder)
        return empty


class Store:
    """One agent's streams over one link."""

    def __init__(
        self, name: str, subjects: Subjects, link: Link, options: Options, clock: Clock, shared: Shared
    ) -> None:
        self.name = name
        self.subjects = subjects
        self.link = link
        self.options = options
        self.clock = clock
        self.shared = shared
        self.reader = Reader(link, subjects)
        self.publisher = Publisher(self.reader, shared.recall, replicated=options.replicas > 1)
        self.consumers = Consumers(link, subjects, ack_wait_ns=options.ack_wait_us * 1_000, replicas=options.replicas)
        self.accepted: tuple[str, ...] = ()
        """What was passed over when the servers were looked at."""
        self._offset_us: int | None = None
        self._measured = 0.0

    async def ask_now_us(self) -> int:
        """Store time, asked."""
        said = await self.reader.now_us()
        now = self.clock.mono()
        offset_us = said - int(now * 1e6)
        if self._offset_us is None or now - self._measured > STALE_SECONDS:
            self._offset_us, self._measured = offset_us, now
        else:
            # An answer is as old as its way back: of several, the quickest comes nearest.
            self._offset_us = max(self._offset_us, offset_us)
        return self.estimate_us()

    async def now_us(self) -> int:
        """Store time, from a recent measurement. Never ahead of the server's."""
        if self._offset_us is None or self.clock.mono() - self._measured > STALE_SECONDS:
            return await self.ask_now_us()
        return self.estimate_us()

    def estimate_us(self) -> int:
        """Store time by the last measurement."""
        assert self._offset_us is not None
        return self._offset_us + int(self.clock.mono() * 1e6)

    async def insist(self) -> StoreSettings:
        """The settings as they stand. `Refused` if the store is another one than was opened or rejoined."""
        settings, _ = await self.reader.settings()
        return self._insisted(settings)

    @asynccontextmanager
    async def insisting(self) -> AsyncIterator[Callable[[], Awaitable[StoreSettings]]]:
        """As `insist`, while something else is read: what was read counts only once that was called."""
        async with self.reader.reading_settings() as reading:

            async def insisted() -> StoreSettings:
                return self._insisted(await reading())

            yield insisted

    def _insisted(self, settings: StoreSettings | None) -> StoreSettings:
        if settings is None or settings.incarnation != self.shared.incarnation:
            found = "none" if settings is None else settings.incarnation
            raise Refused(
                f"agent {self.name!r}: the store is another one than was opened (incarnation {found}, expected "
                f"{self.shared.incarnation}); rejoin it, or close and open the agent, to work with it"
            )
        return settings

    async def keep(self, subject: str, payload: bytes, *, expected: int | None = None) -> bool:
        """Store a message of the control stream in the place of the last one on its subject; False: another one than
        `expected` stood there. Raises `Refused`, and `Indeterminate` where no answer came to what must not be asked
        twice."""
        headers = header_block((EXPECTED, str(expected))) if expected is not None else b""
        [message] = await self.link.ask_all([(subject, headers, payload)])
        ack = read_ack(message)
        if ack is None:
            if expected is None:
                raise self.link.unreachable(f"no answer to {subject}")
            raise Indeterminate(f"the server gave no answer to {subject}", agent=self.name)
        if ack.error is None:
            return True
        if expected is not None and ack.conflict:
            return False
        raise Refused(f"agent {self.name!r}: the server did not take {subject}: {ack.error.description}")

    async def change_confirmed(self, change: Callable[[Confirmed], Confirmed]) -> None:
        """By compare-and-set, tried again where somebody was quicker; nothing is written where nothing changes."""
        for _ in range(ROUNDS):
            confirmed, at = await self.reader.confirmed()
            changed = change(confirmed)
            if changed == confirmed or await self.keep(self.subjects.confirmed, encode(changed), expected=at):
                return
        raise Indeterminate("the confirmation was not taken", agent=self.name)

    async def forget_holds(self, holders: Iterable[Holder]) -> None:
        """Remove holds none of whose leases is open any more."""
        stream = self.subjects.ctl_stream
        requests: list[tuple[str, bytes, bytes]] = [
            (
                f"$JS.API.STREAM.PURGE.{stream}",
                b"",
                f'{{"filter":"{self.subjects.hold(self.shared.owner, holder.number)}"}}'.encode(),
            )
            for holder in holders
        ]
        await self.link.tell(requests)


def facts(**values: Any) -> dict[str, str]:
    """Facts of a probe, as text."""
    return {name.replace("_", " "): str(value) for name, value in values.items()}
