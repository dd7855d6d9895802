"""Parcels: what is done with a delivery once the record that speaks of it has been accepted. Never before.

An acknowledged parcel is gone, one given back is delivered again at once, in its old place. If nothing of this reaches
the server, the parcel comes again after the acknowledgement's time, and whoever gets it sees by the record what it is.
"""

from collections.abc import Iterable, Sequence

import structlog

from jobmaster.model.errors import StoreError
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.nats.connection import Request
from jobmaster_agents.nats.records import Parcel
from jobmaster_agents.nats.store import Store

_ACK = b"+ACK"
_NAK = b"-NAK"
_WORKING = b"+WPI"
_log = structlog.get_logger("jobmaster.nats")


def acknowledge(acks: Sequence[str]) -> list[Request]:
    """The parcels are done with."""
    return [(ack, b"", _ACK) for ack in acks]


def give_back(acks: Sequence[str]) -> list[Request]:
    """The parcels are for whoever asks next."""
    return [(ack, b"", _NAK) for ack in acks]


def keep(acks: Sequence[str]) -> list[Request]:
    """The parcels are still being worked on."""
    return [(ack, b"", _WORKING) for ack in acks]


def later(acks: Sequence[tuple[str, int]]) -> list[Request]:
    """The parcels come again after so many µs, to whoever asks then."""
    return [(ack, b"", b'-NAK {"delay": %d}' % max(delay_us * 1_000, 1_000_000)) for ack, delay_us in acks]


def remove(store: Store, seqs: Sequence[int]) -> list[Request]:
    """Take parcels out of the stream, whoever they were delivered to."""
    subject = f"$JS.API.STREAM.MSG.DELETE.{store.subjects.jobs_stream}"
    return [(subject, b"", b'{"seq":%d,"no_erase":true}' % seq) for seq in seqs]


class Moves:
    """What is to be done with the parcels of a batch, in one window: publish first, then acknowledge or give back."""

    def __init__(self, store: Store, *, removed: Iterable[int] = ()) -> None:
        self._store = store
        self.published: list[tuple[Parcel, int | None]] = []
        self.done: list[str] = []
        self.returned: list[str] = []
        self.removed = list(removed)

    async def run(self) -> None:
        """Never raises what a store may: the records are written, and whoever meets the parcels next mends the rest."""
        try:
            await self._run()
        except StoreError as error:
            _log.warning("nats.parcels_left", agent=self._store.name, error=str(error))

    async def _run(self) -> None:
        store = self._store
        if self.published:
            lanes = {parcel.job.lane for parcel, _ in self.published}
            await store.consumers.ensure(lanes)
            await store.publisher.send_parcels(self.published)
            failpoint("parcel.published")
        if self.removed:
            await store.link.ask_all(remove(store, self.removed))
        if self.returned:
            # Answered, so that a claim that follows at once finds them.
            await store.link.ask_all(give_back(self.returned))
        if self.published:
            # Answered, as their jobs wait elsewhere by now: nobody is to count them twice.
            await store.link.ask_all(acknowledge(self.done))
        elif self.done:
            await store.link.tell(acknowledge(self.done))
