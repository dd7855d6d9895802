"""Workers known here, which of them are dead for certain, and the signals left for them."""

import os
import socket
import sqlite3
from collections.abc import Sequence

import msgspec

from jobmaster.contracts.values import Signal, WorkerCard
from jobmaster_agents.sqlite.store import Store

_KEPT_SIGNALS = 1_000


def register(store: Store, connection: sqlite3.Connection, card: WorkerCard) -> None:
    now_us = store.now_us()
    card = msgspec.structs.replace(card, beat_us=now_us)
    own = card.pid == os.getpid() and card.host == socket.gethostname()
    connection.execute(
        f"INSERT OR REPLACE INTO {store.tables.worker} (id, process, beat_us, card) VALUES (?, ?, ?, ?)",
        (card.id, process_mark(card.pid) if own else "", now_us, msgspec.json.encode(card)),
    )


def deregister(store: Store, connection: sqlite3.Connection, worker: str) -> None:
    connection.execute(f"DELETE FROM {store.tables.worker} WHERE id = ?", (worker,))
    connection.execute(f"DELETE FROM {store.tables.signal} WHERE worker = ?", (worker,))


def workers(store: Store, connection: sqlite3.Connection) -> list[WorkerCard]:
    found = connection.execute(f"SELECT card FROM {store.tables.worker} ORDER BY id")
    return [msgspec.json.decode(card, type=WorkerCard) for (card,) in found]


def dead(store: Store, connection: sqlite3.Connection) -> frozenset[str]:
    """Workers whose process on this host has ended, for certain."""
    host = socket.gethostname()
    found = connection.execute(f"SELECT id, process, card FROM {store.tables.worker} WHERE process <> ''")
    gone = set()
    for worker, mark, raw in found:
        card = msgspec.json.decode(raw, type=WorkerCard)
        if card.host == host and _is_gone(card.pid, mark):
            gone.add(worker)
    return frozenset(gone)


def forget_idle(store: Store, connection: sqlite3.Connection, dead: frozenset[str]) -> None:
    """Dead workers that hold no lease any more."""
    t = store.tables
    connection.executemany(
        f"DELETE FROM {t.worker} WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM {t.job} WHERE st = 2 AND worker = ?1)",
        [(worker,) for worker in dead],
    )


def leave_signals(store: Store, connection: sqlite3.Connection, signals: Sequence[Signal]) -> None:
    t = store.tables
    for signal in signals:
        values = (signal.worker, signal.kind.value, signal.job_id or "")
        connection.execute(
            f"INSERT INTO {t.signal} (worker, kind, job_id, seq) "
            f"SELECT ?1, ?2, ?3, ifnull(max(seq), 0) + 1 FROM {t.signal} WHERE worker = ?1 "
            "ON CONFLICT DO NOTHING",
            values,
        )
        connection.execute(
            f"DELETE FROM {t.signal} WHERE worker = ?1 AND seq <= "
            f"(SELECT max(seq) - {_KEPT_SIGNALS} FROM {t.signal} WHERE worker = ?1)",
            (signal.worker,),
        )


def has_signals(store: Store, connection: sqlite3.Connection, worker: str) -> bool:
    return (
        connection.execute(f"SELECT 1 FROM {store.tables.signal} WHERE worker = ? LIMIT 1", (worker,)).fetchone()
        is not None
    )


def take_signals(store: Store, connection: sqlite3.Connection, worker: str) -> list[Signal]:
    t = store.tables
    found = connection.execute(
        f"SELECT kind, job_id FROM {t.signal} WHERE worker = ? ORDER BY seq",
        (worker,),
    ).fetchall()
    connection.execute(f"DELETE FROM {t.signal} WHERE worker = ?", (worker,))
    return [
        msgspec.convert({"worker": worker, "kind": kind, "job_id": job_id or None}, Signal) for kind, job_id in found
    ]


def process_mark(pid: int) -> str:
    """What tells a process from a later one with the same number, and from one in another container: empty where the
    system does not say, and then nobody is declared dead."""
    try:
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            # The name in parentheses may hold anything; the fields after it may not.
            fields = stat.read().rpartition(")")[2].split()
    except (OSError, IndexError):
        return ""
    return "" if fields[0] in ("Z", "X") else f"{namespace} {fields[19]}"


def _is_gone(pid: int, mark: str) -> bool:
    namespace = mark.partition(" ")[0]
    try:
        if os.readlink("/proc/self/ns/pid") != namespace:
            return False
    except OSError:
        return False
    return process_mark(pid) != mark
