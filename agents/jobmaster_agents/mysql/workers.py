"""Workers known here, and the signals left for them."""

from collections.abc import Sequence

import msgspec

from jobmaster.contracts.mysql_text import row
from jobmaster.contracts.values import Signal, WorkerCard
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store

FORGOTTEN_US = 86_400_000_000
"""Silence after which a worker is not even listed as dead any more: a day."""
KEPT_SIGNALS = 1_000


async def register(store: Store, session: Session, card: WorkerCard) -> None:
    t = store.tables
    now_us = await store.now_us(session)
    await session.execute(
        f"INSERT INTO {t.worker} (id, beat_us, card) VALUES (?, ?, ?) "
        "ON DUPLICATE KEY UPDATE beat_us = VALUES(beat_us), card = VALUES(card)",
        card.id,
        now_us,
        msgspec.json.encode(msgspec.structs.replace(card, beat_us=now_us)),
    )
    # Those that were killed never say that they leave. They are few, so this reads next to nothing.
    gone = await session.fetch(f"SELECT id FROM {t.worker} WHERE beat_us < ? ORDER BY id", now_us - FORGOTTEN_US)
    for (worker,) in gone:
        await deregister(store, session, worker)


async def deregister(store: Store, session: Session, worker: str) -> None:
    t = store.tables
    await session.execute(f"DELETE FROM {t.worker} WHERE id = ?", worker)
    await session.execute(f"DELETE FROM {t.signal} WHERE worker = ?", worker)


async def workers(store: Store, session: Session) -> list[WorkerCard]:
    found = await session.fetch(f"SELECT card FROM {store.tables.worker} ORDER BY id")
    return [msgspec.json.decode(card, type=WorkerCard) for (card,) in found]


async def leave_signals(store: Store, session: Session, signals: Sequence[Signal]) -> None:
    if not signals:
        return
    t = store.tables
    # In the order of the primary key, as everybody who leaves some; one that is there already stands for both.
    ordered = sorted({(signal.worker, signal.kind.value, signal.job_id or "") for signal in signals})
    rows = b", ".join(row(*values) for values in ordered)
    await session.script(
        b"INSERT INTO %b (worker, kind, job_id) VALUES %b ON DUPLICATE KEY UPDATE kind = VALUES(kind)"
        % (t.signal.encode(), rows)
    )
    for worker in sorted({signal.worker for signal in signals}):
        oldest = await session.fetch(
            f"SELECT seq FROM {t.signal} WHERE worker = ? ORDER BY seq DESC LIMIT 1 OFFSET {KEPT_SIGNALS}", worker
        )
        if oldest:
            await session.execute(f"DELETE FROM {t.signal} WHERE worker = ? AND seq <= ?", worker, oldest[0][0])


async def has_signals(store: Store, session: Session, worker: str) -> bool:
    return bool(await session.fetch(f"SELECT 1 FROM {store.tables.signal} WHERE worker = ? LIMIT 1", worker))


async def take_signals(store: Store, session: Session, worker: str) -> list[Signal]:
    t = store.tables
    found = await session.fetch(f"SELECT seq, kind, job_id FROM {t.signal} WHERE worker = ? FOR UPDATE", worker)
    if found:
        # What was left meanwhile was not read, and stays.
        seqs = sorted(seq for seq, _, _ in found)
        await session.execute(f"DELETE FROM {t.signal} WHERE worker = ? AND seq IN ?", worker, seqs)
    return [
        msgspec.convert({"worker": worker, "kind": kind, "job_id": job_id or None}, Signal)
        for _, kind, job_id in sorted(found)
    ]
