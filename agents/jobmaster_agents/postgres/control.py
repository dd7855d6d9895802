"""control: what an operator decides about the store or one of its lanes, kept in the store."""

from typing import assert_never

from jobmaster.contracts.values import Control, ControlKind, RevokeKind, StoreMode, StoreState
from jobmaster.model.errors import Refused
from jobmaster_agents.postgres.connection import Connection
from jobmaster_agents.postgres.reconciling import quarantine
from jobmaster_agents.postgres.store import Store
from jobmaster_agents.postgres.waiting import take_waiting

_PURGED_AT_ONCE = 1_000


async def control(store: Store, connection: Connection, change: Control) -> tuple[StoreState, set[str]]:
    """The state afterwards, and the lanes to look at again."""
    t = store.tables
    lanes: set[str] = set()
    match change.kind:
        case ControlKind.STATE:
            pass
        case ControlKind.PAUSE:
            await _set_mode(store, connection, StoreMode.PAUSED)
        case ControlKind.DRAIN:
            await _set_mode(store, connection, StoreMode.DRAINING)
        case ControlKind.QUARANTINE:
            await quarantine(store, connection, change)
        case ControlKind.RESUME:
            await _set_mode(store, connection, StoreMode.OPEN)
            # All that ever had jobs: who looks in vain looks once.
            found = await connection.fetch(f"SELECT name FROM {t.lane} UNION SELECT lane FROM {t.count}")
            lanes = {lane for (lane,) in found}
        case ControlKind.PAUSE_LANE:
            await connection.execute(
                f"INSERT INTO {t.lane} (name, paused) VALUES ($1, true) ON CONFLICT (name) DO UPDATE SET paused = true",
                lane_of(change),
            )
        case ControlKind.RESUME_LANE:
            await connection.execute(f"UPDATE {t.lane} SET paused = false WHERE name = $1", lane_of(change))
            lanes = {lane_of(change)}
        case ControlKind.PURGE_LANE:
            raise ValueError("a purge takes a transaction for each page: see purge_page")
        case _:
            assert_never(change.kind)
    paused = await connection.fetch(f"SELECT name FROM {t.lane} WHERE paused")
    meta = await store.meta(connection)
    return StoreState(meta.mode, frozenset(name for (name,) in paused)), lanes


async def purge_page(store: Store, connection: Connection, lane: str, after_id: str) -> list[str]:
    """Cancel the next waiting jobs of a lane; their ids. A lane may hold a million, and a transaction as long as that
    would keep the locks of all of them."""
    return await take_waiting(store, connection, lane, RevokeKind.CANCEL, _PURGED_AT_ONCE, after_id)


async def _set_mode(store: Store, connection: Connection, mode: StoreMode) -> None:
    await connection.execute(f"UPDATE {store.tables.meta} SET mode = $1", mode.value)


def lane_of(change: Control) -> str:
    if change.lane is None:
        raise Refused(f"control {change.kind} names no lane: give Control(kind, lane)")
    return change.lane
