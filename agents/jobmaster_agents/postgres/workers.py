"""Workers known here, and the signals left for them."""

from collections.abc import Sequence

import msgspec

from jobmaster.contracts.values import Signal, WorkerCard
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.store import Store

FORGOTTEN_US = 86_400_000_000
"""Silence after which a worker is not even listed as dead any more: a day."""
_KEPT_SIGNALS = 1_000


async def register(store: Store, connection: Connection, card: WorkerCard) -> None:
    t = store.tables
    now_us = await store.now_us(connection)
    await connection.execute(
        f"INSERT INTO {t.worker} (id, beat_us, card) VALUES ($1, $2, $3) "
        "ON CONFLICT (id) DO UPDATE SET beat_us = excluded.beat_us, card = excluded.card",
        card.id,
        now_us,
        msgspec.json.encode(msgspec.structs.replace(card, beat_us=now_us)),
    )
    # Those that were killed never say that they leave. They are few, so this reads next to nothing.
    await connection.execute(
        f"WITH gone AS (DELETE FROM {t.worker} WHERE beat_us < $1 RETURNING id) "
        f"DELETE FROM {t.signal} WHERE worker = ANY (ARRAY(SELECT id FROM gone))",
        now_us - FORGOTTEN_US,
    )


async def deregister(store: Store, connection: Connection, worker: str) -> None:
    t = store.tables
    await connection.execute(
        f"WITH gone AS (DELETE FROM {t.worker} WHERE id = $1) DELETE FROM {t.signal} WHERE worker = $1", worker
    )


async def workers(store: Store, connection: Connection) -> list[WorkerCard]:
    found = await connection.fetch(f"SELECT card FROM {store.tables.worker} ORDER BY id")
    return [msgspec.json.decode(card, type=WorkerCard) for (card,) in found]


async def leave_signals(store: Store, connection: Connection, signals: Sequence[Signal]) -> None:
    t = store.tables
    # In the order of the primary key, as everybody who leaves some; one that is there already stands for both.
    ordered = sorted({(signal.worker, signal.kind.value, signal.job_id or "") for signal in signals})
    columns = [list(column) for column in zip(*ordered, strict=True)] or [[], [], []]
    await connection.execute(
        f"INSERT INTO {t.signal} (worker, kind, job_id) SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) "
        "ON CONFLICT DO NOTHING",
        *columns,
    )
    await connection.execute(
        f"DELETE FROM {t.signal} AS old WHERE worker = ANY ($1::text[]) AND seq <= (SELECT max(seq) FROM {t.signal} "
        f"AS new WHERE new.worker = old.worker) - {_KEPT_SIGNALS}",
        sorted({signal.worker for signal in signals}),
    )


async def has_signals(store: Store, connection: Connection, worker: str) -> bool:
    found = await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {store.tables.signal} WHERE worker = $1)", worker)
    return bool(found)


async def take_signals(store: Store, connection: Connection, worker: str) -> list[Signal]:
    found = await connection.fetch(
        f"DELETE FROM {store.tables.signal} WHERE worker = $1 RETURNING seq, kind, job_id", worker
    )
    return [
        msgspec.convert({"worker": worker, "kind": kind, "job_id": job_id or None}, Signal)
        for _, kind, job_id in sorted(map(tuple, found))
    ]
