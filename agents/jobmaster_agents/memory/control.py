"""Control of the agent, its outbox and its tombstones."""

from collections.abc import Sequence
from typing import assert_never

from jobmaster.contracts.values import Control, ControlKind, OutboxRecord, ProbeReport, StoreMode, StoreState
from jobmaster.model.errors import Refused
from jobmaster_agents.memory import revoking
from jobmaster_agents.memory.store import Store


def probe(store: Store, expected: str) -> ProbeReport:
    return ProbeReport(
        joined=store.incarnation == expected,
        incarnation=store.incarnation,
        mode=store.mode,
        high_water=store.outbox.high_water,
        findings=store.findings,
        facts={"jobs": str(len(store.shelf.rows))},
    )


def control(store: Store, change: Control) -> StoreState:
    purged = _apply(store, change)
    return StoreState(store.mode, frozenset(store.paused_lanes), purged)


def _apply(store: Store, change: Control) -> int:
    match change.kind:
        case ControlKind.STATE:
            pass
        case ControlKind.PAUSE:
            store.mode = StoreMode.PAUSED
        case ControlKind.RESUME:
            store.mode = StoreMode.OPEN
            for lane in list(store.shelf.counts):
                store.hints.ring(lane)
        case ControlKind.DRAIN:
            store.mode = StoreMode.DRAINING
        case ControlKind.QUARANTINE:
            if change.incarnation not in (None, store.incarnation):
                raise Refused(
                    f"agent {store.agent!r}: the store is incarnation {store.incarnation} by now, not "
                    f"{change.incarnation}, and stays {store.mode}; look at it again"
                )
            store.mode = StoreMode.QUARANTINED
            store.outbox.high_water = max(store.outbox.high_water, change.mark)
        case ControlKind.PAUSE_LANE:
            store.paused_lanes.add(_lane(change))
        case ControlKind.RESUME_LANE:
            store.paused_lanes.discard(_lane(change))
            store.hints.ring(_lane(change))
        case ControlKind.PURGE_LANE:
            return revoking.purge(store, _lane(change))
        case _:
            assert_never(change.kind)
    return 0


def _lane(change: Control) -> str:
    if change.lane is None:
        raise Refused(f"control {change.kind} names no lane: give Control(kind, lane)")
    return change.lane


def changes(store: Store, limit: int, older_than_us: int) -> list[OutboxRecord]:
    return store.outbox.changes(limit, store.now_us() - older_than_us)


def confirm(store: Store, seqs: Sequence[int]) -> None:
    store.outbox.confirm(seqs)


def prune(store: Store, limit: int) -> int:
    return store.tombstones.prune(limit, store.now_us(), store.outbox.concerns)
