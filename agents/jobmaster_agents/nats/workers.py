"""Workers known here, and the signals left for them: messages of the control stream, one a subject.

A card's time of storing is its heartbeat, so nobody's clock but the server's says when a worker was last heard of.
"""

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from jobmaster.contracts.values import Signal, WorkerCard
from jobmaster_agents.nats import api
from jobmaster_agents.nats.store import Store

FORGOTTEN_US = 86_400_000_000
"""Silence after which a worker is not even listed as dead any more: a day."""

_cards = msgspec.json.Decoder(WorkerCard)
_signals = msgspec.json.Decoder(Signal)


class Workers:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def register(self, card: WorkerCard) -> None:
        await self._store.keep(self._card(card.id), msgspec.json.encode(card))

    async def deregister(self, worker: str) -> None:
        await self._forget(worker)

    async def workers(self) -> list[WorkerCard]:
        store = self._store
        found = await store.reader.every(store.subjects.ctl_stream, store.subjects.cards)
        cards = [msgspec.structs.replace(_cards.decode(stored.data), beat_us=stored.at_us) for stored in found]
        # Those that were killed never say that they leave.
        before_us = await store.now_us() - FORGOTTEN_US
        for card in cards:
            if card.beat_us < before_us:
                await self._forget(card.id)
        return sorted((card for card in cards if card.beat_us >= before_us), key=lambda card: card.id)

    async def signal(self, signals: Sequence[Signal]) -> None:
        subjects = self._store.subjects
        for each in signals:
            token = _token(each.job_id) if each.job_id is not None else "-"
            subject = f"{subjects.signals(_token(each.worker))}.{each.kind}.{token}"
            await self._store.keep(subject, msgspec.json.encode(each))

    async def signals(self, worker: str) -> list[Signal]:
        store = self._store
        stream, subject = store.subjects.ctl_stream, f"{store.subjects.signals(_token(worker))}.>"
        found = await store.reader.every(stream, subject)
        if found:
            # Up to what was read: one that came since is for the next time.
            await api.call(store.link, f"STREAM.PURGE.{stream}", filter=subject, seq=found[-1].seq + 1)
        return [_signals.decode(stored.data) for stored in found]

    async def _forget(self, worker: str) -> None:
        store = self._store
        for subject in (self._card(worker), f"{store.subjects.signals(_token(worker))}.>"):
            await api.call(store.link, f"STREAM.PURGE.{store.subjects.ctl_stream}", filter=subject)

    def _card(self, worker: str) -> str:
        return self._store.subjects.card(_token(worker))


def _token(text: str) -> str:
    """Ids of workers are anybody's text, a subject's token is not."""
    return blake2b(text.encode(), digest_size=12).hexdigest()
