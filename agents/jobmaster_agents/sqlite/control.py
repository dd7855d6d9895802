"""control: what an operator decides about the store or one of its lanes, kept in the store."""

import sqlite3
from typing import assert_never

from jobmaster.contracts.values import Control, ControlKind, RevokeKind, StoreMode, StoreState
from jobmaster.model.errors import Refused
from jobmaster_agents.sqlite.reconciling import quarantine
from jobmaster_agents.sqlite.store import Store
from jobmaster_agents.sqlite.tables import READY
from jobmaster_agents.sqlite.waiting import take_waiting

_PURGED_AT_ONCE = 1_000


def control(store: Store, connection: sqlite3.Connection, change: Control) -> tuple[StoreState, set[str]]:
    """The state afterwards, and the lanes to look at again."""
    t = store.tables
    lanes: set[str] = set()
    match change.kind:
        case ControlKind.STATE:
            pass
        case ControlKind.PAUSE:
            _set_mode(store, connection, StoreMode.PAUSED)
        case ControlKind.DRAIN:
            _set_mode(store, connection, StoreMode.DRAINING)
        case ControlKind.QUARANTINE:
            quarantine(store, connection, change)
        case ControlKind.RESUME:
            _set_mode(store, connection, StoreMode.OPEN)
            found = connection.execute(f"SELECT DISTINCT lane FROM {t.job} WHERE st = {READY}")
            lanes = {lane for (lane,) in found}
        case ControlKind.PAUSE_LANE:
            connection.execute(
                f"INSERT INTO {t.lane} (name, paused) VALUES (?, 1) ON CONFLICT DO UPDATE SET paused = 1",
                (lane_of(change),),
            )
        case ControlKind.RESUME_LANE:
            connection.execute(f"UPDATE {t.lane} SET paused = 0 WHERE name = ?", (lane_of(change),))
            lanes = {lane_of(change)}
        case ControlKind.PURGE_LANE:
            raise ValueError("a purge takes a transaction for each page: see purge_page")
        case _:
            assert_never(change.kind)
    paused = connection.execute(f"SELECT name FROM {t.lane} WHERE paused")
    return StoreState(store.meta(connection).mode, frozenset(name for (name,) in paused)), lanes


def purge_page(store: Store, connection: sqlite3.Connection, lane: str, after_id: str) -> list[str]:
    """Cancel the next waiting jobs of a lane; their ids. A lane may hold a million, and a transaction as long as that
    would keep every lease from being extended."""
    return take_waiting(store, connection, lane, RevokeKind.CANCEL, _PURGED_AT_ONCE, after_id)


def _set_mode(store: Store, connection: sqlite3.Connection, mode: StoreMode) -> None:
    connection.execute(f"UPDATE {store.tables.meta} SET mode = ?", (mode.value,))


def lane_of(change: Control) -> str:
    if change.lane is None:
        raise Refused(f"control {change.kind} names no lane: give Control(kind, lane)")
    return change.lane
