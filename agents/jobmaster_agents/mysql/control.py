"""control: what an operator decides about the store or one of its lanes, kept in the store."""

from typing import assert_never

from jobmaster.contracts.values import Control, ControlKind, RevokeKind, StoreMode, StoreState
from jobmaster.model.errors import Refused
from jobmaster_agents.mysql.reconciling import quarantine
from jobmaster_agents.mysql.session import Session
from jobmaster_agents.mysql.store import Store
from jobmaster_agents.mysql.waiting import take_waiting

_PURGED_AT_ONCE = 1_000


async def control(store: Store, session: Session, change: Control) -> tuple[StoreState, set[str]]:
    """The state afterwards, and the lanes to look at again."""
    t = store.tables
    lanes: set[str] = set()
    match change.kind:
        case ControlKind.STATE:
            pass
        case ControlKind.PAUSE:
            await _set_mode(store, session, StoreMode.PAUSED)
        case ControlKind.DRAIN:
            await _set_mode(store, session, StoreMode.DRAINING)
        case ControlKind.QUARANTINE:
            await quarantine(store, session, change)
        case ControlKind.RESUME:
            await _set_mode(store, session, StoreMode.OPEN)
            # All that ever had jobs: who looks in vain looks once.
            found = await session.fetch(f"SELECT name FROM {t.lane} UNION SELECT lane FROM {t.count}")
            lanes = {lane for (lane,) in found}
        case ControlKind.PAUSE_LANE:
            await session.execute(
                f"INSERT INTO {t.lane} (name, paused) VALUES (?, TRUE) ON DUPLICATE KEY UPDATE paused = TRUE",
                lane_of(change),
            )
        case ControlKind.RESUME_LANE:
            await session.execute(f"UPDATE {t.lane} SET paused = FALSE WHERE name = ?", lane_of(change))
            lanes = {lane_of(change)}
        case ControlKind.PURGE_LANE:
            raise ValueError("a purge takes a transaction for each page: see purge_page")
        case _:
            assert_never(change.kind)
    paused = await session.fetch(f"SELECT name FROM {t.lane} WHERE paused")
    meta = await store.meta(session)
    return StoreState(meta.mode, frozenset(name for (name,) in paused)), lanes


async def purge_page(store: Store, session: Session, lane: str, after_id: str) -> list[str]:
    """Cancel the next waiting jobs of a lane; their ids. A lane may hold a million, and a transaction as long as that
    would keep the locks of all of them."""
    return await take_waiting(store, session, lane, RevokeKind.CANCEL, _PURGED_AT_ONCE, after_id)


async def _set_mode(store: Store, session: Session, mode: StoreMode) -> None:
    await session.execute(f"UPDATE {store.tables.meta} SET mode = ?", mode.value)


def lane_of(change: Control) -> str:
    if change.lane is None:
        raise Refused(f"control {change.kind} names no lane: give Control(kind, lane)")
    return change.lane
