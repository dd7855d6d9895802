"""Workers as they are known here, and the hints left for them."""

from collections.abc import Sequence

import msgspec

from jobmaster.contracts.values import Signal, WorkerCard
from jobmaster_agents.memory.store import Store


def register(store: Store, card: WorkerCard) -> None:
    store.cards[card.id] = msgspec.structs.replace(card, beat_us=store.now_us())


def deregister(store: Store, worker: str) -> None:
    store.cards.pop(worker, None)
    store.hints.take_signals(worker)


def workers(store: Store) -> list[WorkerCard]:
    return [store.cards[worker] for worker in sorted(store.cards)]


def signal(store: Store, signals: Sequence[Signal]) -> None:
    for each in signals:
        store.hints.leave_signal(each)


def signals(store: Store, worker: str) -> list[Signal]:
    return store.hints.take_signals(worker)
