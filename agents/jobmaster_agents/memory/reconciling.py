"""Reconciling a store that is not what it was: raise or remove its rows, then make it a new one."""

from collections.abc import Sequence

from msgspec.structs import replace

from jobmaster.contracts import decisions
from jobmaster.contracts.values import ProbeReport, Rebase, RebaseKind, Release, StoreMode
from jobmaster.model.errors import Refused
from jobmaster_agents.memory import control
from jobmaster_agents.memory.shelf import Place, Row
from jobmaster_agents.memory.store import Store
from jobmaster_agents.memory.tombstones import Tombstone


def rebase(store: Store, items: Sequence[Rebase]) -> list[bool]:
    _check_quarantined(store)
    now_us = store.now_us()
    return [_rebase(store, item, now_us) for item in items]


def adopt(store: Store, incarnation: str) -> ProbeReport:
    if store.incarnation != incarnation:
        _check_quarantined(store)
        store.incarnation = incarnation
        store.mode = StoreMode.OPEN
        for lane in list(store.shelf.counts):
            store.hints.ring(lane)
    return control.probe(store, incarnation)


def _check_quarantined(store: Store) -> None:
    if store.mode is not StoreMode.QUARANTINED:
        raise Refused(f"agent {store.agent!r} is {store.mode}: only a quarantined store is reconciled")


def _rebase(store: Store, item: Rebase, now_us: int) -> bool:
    row = store.shelf.rows.get(item.id)
    if row is None or row.job.epoch != item.epoch:
        return False
    if item.kind is RebaseKind.REMOVE:
        store.shelf.remove(row)
        stone = Tombstone(epoch=item.epoch, token=row.last_token, digest=row.last_digest, at_us=now_us)
        store.tombstones.set(item.id, stone)
        return True
    _raise(store, row, item.started, now_us)
    return True


def _raise(store: Store, row: Row, started: bool, now_us: int) -> None:
    job, run = decisions.rebased(row.job, started, now_us)
    row.first = replace(row.first, epoch=job.epoch)
    if row.place is Place.LEASED:
        returned = Release(job.id, row.job.token, run is not None)
        store.end_lease(row, job, run, decisions.release_digest(returned), now_us)
    elif job.terminal:
        store.end(row, job, None, row.last_token, row.last_digest, now_us)
    else:
        store.shelf.set(row, job, row.place)
