"""Questions about what is here: find, page, count. Nothing is changed."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from jobmaster.contracts.filters import matches
from jobmaster.contracts.values import InventoryItem, JobFilter, LaneStats, Page
from jobmaster.model.job import Job
from jobmaster_agents.memory.shelf import Place
from jobmaster_agents.memory.store import Store


def find(store: Store, ids: Sequence[str]) -> list[Job | None]:
    rows = store.shelf.rows
    return [rows[job_id].job if job_id in rows else store.outbox.latest(job_id) for job_id in ids]


def inventory(store: Store, after_id: str, limit: int) -> list[InventoryItem]:
    found = (store.shelf.rows[job_id].job for job_id in islice(store.shelf.order.after(after_id), limit))
    return [InventoryItem(job.id, job.epoch, job.version) for job in found]


def jobs(store: Store, after_id: str, before_id: str, limit: int, leased_only: bool) -> list[Job]:
    found: list[Job] = []
    for job_id in store.shelf.order.after(after_id):
        if job_id >= before_id or len(found) == limit:
            break
        row = store.shelf.rows[job_id]
        if row.place is Place.LEASED or not leased_only:
            found.append(row.job)
    return found


def peek(store: Store, where: JobFilter, cursor: str | None, limit: int) -> Page:
    found: list[Job] = []
    for job_id in store.shelf.order.before(cursor):
        job = store.shelf.rows[job_id].job
        if matches(where, job):
            if len(found) == limit:
                return Page(found, found[-1].id)
            found.append(job)
    return Page(found, None)


def stats(store: Store) -> list[LaneStats]:
    shelf = store.shelf
    found = []
    for lane in sorted(shelf.counts.keys() | store.paused_lanes):
        counts = shelf.counts.get(lane, Counter())
        found.append(
            LaneStats(
                lane=lane,
                ready=counts[Place.READY],
                delayed=counts[Place.DELAYED],
                leased=counts[Place.LEASED],
                parked=counts[Place.PARKED],
                oldest_ready_us=shelf.oldest_due_us(lane),
                paused=lane in store.paused_lanes,
            )
        )
    return found
