"""Into the store and out to workers: put, claim, promote, park, amend."""

from collections.abc import Mapping, Sequence

from jobmaster.contracts import decisions
from jobmaster.contracts.values import AmendAnswer, Amendment, ParkReport, PromoteReport, PutAnswer, StoreMode
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.telemetry.probes import probe
from jobmaster_agents.memory.shelf import Place, Row
from jobmaster_agents.memory.store import Store

_CLOSED_TO_NEW = frozenset({StoreMode.DRAINING, StoreMode.QUARANTINED})


def put(store: Store, jobs: Sequence[Job], put_deadline_us: int) -> list[PutAnswer]:
    """All answers are found before anything is stored, so that a refusal leaves nothing behind."""
    now_us = store.now_us()
    batch: dict[str, Job] = {}
    answers = []
    for job in jobs:
        answer = _put_answer(store, batch.get(job.id), job, put_deadline_us, now_us)
        if answer is PutAnswer.STORED:
            if store.mode in _CLOSED_TO_NEW:
                raise Refused(
                    f"agent {store.agent!r} is {store.mode} and takes no new job: put job {job.id} elsewhere, "
                    "or resume the agent"
                )
            batch[job.id] = job
        answers.append(answer)
    for job in batch.values():
        _shelve_new(store, decisions.placed(job, store.agent), now_us)
    duplicates = answers.count(PutAnswer.DUPLICATE)
    if duplicates:
        probe("duplicate_put", duplicates)
    return answers


def _put_answer(store: Store, earlier: Job | None, job: Job, put_deadline_us: int, now_us: int) -> PutAnswer:
    row = store.shelf.rows.get(job.id)
    known = earlier or (row.first if row is not None else None)
    if known is not None:
        if known.epoch == job.epoch:
            same = (known.handler, known.data) == (job.handler, job.data)
            return PutAnswer.DUPLICATE if same else PutAnswer.CONFLICT
        if known.epoch > job.epoch:
            return PutAnswer.STALE_EPOCH
        if row is not None and row.place is Place.LEASED:
            return PutAnswer.CONFLICT
    stone = store.tombstones.get(job.id)
    if stone is not None and stone.epoch >= job.epoch:
        return PutAnswer.TOMBSTONED
    return PutAnswer.STALE_PUT if now_us > put_deadline_us else PutAnswer.STORED


def _shelve_new(store: Store, job: Job, now_us: int) -> None:
    superseded = store.shelf.rows.get(job.id)
    if superseded is not None:
        store.shelf.remove(superseded)
    place = Place.READY if decisions.is_due(job, now_us) else Place.DELAYED
    row = Row(job, place, store.shelf.next_seq())
    if superseded is not None:
        row.last_token, row.last_digest = superseded.last_token, superseded.last_digest
    store.shelf.add(row)


def claim(
    store: Store, worker: str, quotas: Mapping[str, int], handlers: frozenset[str], limit: int, ttl_us: int
) -> list[Job]:
    if store.mode is not StoreMode.OPEN:
        return []
    now_us = store.now_us()
    claimed: list[Job] = []
    for lane, quota in quotas.items():
        if lane in store.paused_lanes:
            continue
        end = len(claimed) + min(quota, limit - len(claimed))
        if len(claimed) >= end:
            continue
        for row in store.shelf.in_line(lane, handlers):
            if decisions.is_expired(row.job, now_us):
                store.expire(row, now_us)
                continue
            job = decisions.claimed(row.job, worker)
            row.leased_until_us = now_us + ttl_us
            store.shelf.set(row, job, Place.LEASED)
            claimed.append(job)
            if len(claimed) == end:
                break
    return claimed


def promote(store: Store, limit: int) -> PromoteReport:
    if store.mode is StoreMode.QUARANTINED:
        return PromoteReport()
    now_us, shelf = store.now_us(), store.shelf
    expired = ready = 0
    while expired < limit and (first := shelf.expiring.first()) is not None and first[0] <= now_us:
        store.expire(shelf.rows[first[1]], now_us)
        expired += 1
    while ready < limit and (next_due := shelf.delayed.first()) is not None and next_due[0][0] <= now_us:
        row = shelf.rows[next_due[1]]
        shelf.set(row, row.job, Place.READY, shelf.next_seq())
        ready += 1
    due, expiry = shelf.delayed.first(), shelf.expiring.first()
    coming = [*([due[0][0]] if due else ()), *([expiry[0]] if expiry else ())]
    return PromoteReport(
        ready=ready,
        expired=expired,
        next_due_us=min(coming, default=None),
        more=ready == limit or expired == limit,
    )


def park(store: Store, known: frozenset[str], limit: int) -> ParkReport:
    if store.mode is StoreMode.QUARANTINED:
        return ParkReport()
    shelf = store.shelf
    parked: dict[str, int] = {}
    left = limit
    for _, handler, line in shelf.ready_handlers():
        if handler in known:
            continue
        while left and (first := line.first()) is not None:
            row = shelf.rows[first[1]]
            shelf.set(row, row.job, Place.PARKED)
            parked[handler] = parked.get(handler, 0) + 1
            left -= 1
    unparked = failed = 0
    now_us = store.now_us()
    for row in [row for row in shelf.rows.values() if row.place is Place.PARKED and row.job.handler not in known]:
        ended = decisions.unroutable(row.job, now_us) if failed < limit else None
        if ended is not None:
            store.end(row, ended, None, row.last_token, row.last_digest, now_us)
            failed += 1
    for handler in sorted(known & shelf.parked.keys()):
        waiting = shelf.parked[handler]
        while unparked < limit and (place := waiting.first()) is not None:
            row = shelf.rows[place[1]]
            shelf.set(row, row.job, Place.READY)
            unparked += 1
    return ParkReport(parked=parked, unparked=unparked, failed=failed, more=not left or limit in (unparked, failed))


def amend(store: Store, items: Sequence[Amendment]) -> list[AmendAnswer]:
    now_us = store.now_us()
    return [_amend(store, item, now_us) for item in items]


def _amend(store: Store, item: Amendment, now_us: int) -> AmendAnswer:
    row = store.shelf.rows.get(item.id)
    if row is None:
        return AmendAnswer.UNKNOWN
    if row.place is Place.LEASED:
        return AmendAnswer.RUNNING
    if row.job.version != item.version:
        return AmendAnswer.CONFLICT
    job = decisions.amended(row.job, item)
    if row.place is not Place.DELAYED and decisions.is_due(job, now_us):
        store.shelf.set(row, job, row.place)
    else:
        store.shelve(row, job, now_us)
    return AmendAnswer.CHANGED
