"""Questions about what is here: find, page, count. Nothing is changed."""

import asyncio
from collections.abc import Sequence
from typing import Any

from jobmaster.contracts.filters import matches
from jobmaster.contracts.values import InventoryItem, JobFilter, LaneStats, Page
from jobmaster.model.job import Job
from jobmaster_agents.nats import api
from jobmaster_agents.nats.census import Census, Span
from jobmaster_agents.nats.reader import Standing
from jobmaster_agents.nats.records import Confirmed, decode_record
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.subjects import PRIORITIES

BATCH = 500
HEAD = 10
"""Of so many at the head of a line the one that was due first counts as its oldest."""
LOOKED_AT = 10_000
"""Jobs that one call of `peek` looks at: then the page is short, and its cursor says that the search goes on."""


COUNTS = 10
COUNT_SECONDS = 0.005


class Reading:
    def __init__(self, store: Store, census: Census) -> None:
        self._store = store
        self._census = census

    async def find(self, ids: Sequence[str]) -> list[Job | None]:
        store = self._store
        standings = await store.reader.standings(list(dict.fromkeys(ids)))
        found = {job_id: standing.job for job_id, standing in standings.items()}
        left = [job_id for job_id, standing in standings.items() if standing.job is None]
        if left:
            confirmed, _ = await store.reader.confirmed()
            for job_id in left:
                found[job_id] = await self._latest(job_id, standings[job_id], confirmed)
        return [found.get(job_id) for job_id in ids]

    async def inventory(self, after_id: str, limit: int) -> list[InventoryItem]:
        jobs = await self._some(await self._census.between(after_id), limit)
        return [InventoryItem(job.id, job.epoch, job.version) for job in jobs]

    async def jobs(self, after_id: str, before_id: str, limit: int, leased_only: bool) -> list[Job]:
        if not leased_only:
            return await self._some(await self._census.between(after_id, before_id), limit)
        leased = await self._leased(after_id, before_id)
        return leased[:limit]

    async def peek(self, where: JobFilter, cursor: str | None, limit: int) -> Page:
        # Who begins to read sees what is there now: a change of many jobs must not pass over the last ones put.
        ids = await self._census.between("", cursor, anew=cursor is None)
        found: list[Job] = []
        for start in range(0, min(len(ids), LOOKED_AT), BATCH):
            page = ids.last(start, BATCH)
            standings = await self._store.reader.standings(page)
            for job_id in page:
                job = standings[job_id].job if job_id in standings else None
                if job is not None and matches(where, job):
                    if len(found) == limit:
                        return Page(found, found[-1].id)
                    found.append(job)
        return Page(found, ids.last(LOOKED_AT - 1, 1)[0] if len(ids) > LOOKED_AT else None)

    async def stats(self) -> list[LaneStats]:
        store = self._store
        consumers = await self._counted()
        settings, _ = await store.reader.settings()
        paused = set(settings.paused_lanes) if settings is not None else set()
        leased: dict[str, int] = {}
        for job in await self._leased("", None):
            leased[job.lane] = leased.get(job.lane, 0) + 1
        found = []
        for lane in sorted({*consumers, *paused}):
            stats = await self._lane(lane, consumers.get(lane, {}), leased.get(lane, 0), lane in paused)
            if stats.ready or stats.delayed or stats.leased or stats.paused:
                found.append(stats)
        return found

    async def _lane(self, lane: str, consumers: dict[str, Any], leased: int, paused: bool) -> LaneStats:
        subjects = self._store.subjects
        waiting = consumers.get(subjects.waiting_consumer(lane), {})
        ready = -leased
        oldest: int | None = None
        for priority in PRIORITIES:
            info = consumers.get(subjects.consumer(lane, priority))
            if info is None:
                continue
            ready += info["num_pending"] + info["num_ack_pending"]
            if info["num_pending"]:
                due_us = await self._first_due(lane, priority, info["delivered"]["stream_seq"] + 1)
                oldest = due_us if oldest is None or (due_us is not None and due_us < oldest) else oldest
        return LaneStats(
            lane=lane,
            ready=max(ready, 0),
            delayed=waiting.get("num_pending", 0),
            leased=leased,
            oldest_ready_us=oldest,
            paused=paused,
        )

    async def _first_due(self, lane: str, priority: int, start: int) -> int | None:
        store = self._store
        sents = await store.reader.parcels(store.subjects.lane(lane, priority), start, HEAD)
        return min((sent.parcel.job.due_us for sent in sents), default=None)

    async def _counted(self) -> dict[str, dict[str, Any]]:
        """As `_consumers`, once they have heard of every message stored: they do a little after everybody else."""
        stream = self._store.subjects.jobs_stream
        for _ in range(COUNTS):
            stored = (await api.call(self._store.link, f"STREAM.INFO.{stream}"))["state"]["messages"]
            infos = await self._store.reader.consumers()
            if sum(info["num_pending"] + info["num_ack_pending"] for info in infos) >= stored:
                break
            await asyncio.sleep(COUNT_SECONDS)
        return await self._consumers()

    async def _consumers(self) -> dict[str, dict[str, Any]]:
        """What the server says of each lane's consumers, by lane and name."""
        found: dict[str, dict[str, Any]] = {}
        for info in await self._store.reader.consumers():
            lane, _, _ = info["name"].rpartition("_")
            if lane:
                found.setdefault(lane, {})[info["name"]] = info
        return found

    async def _leased(self, after_id: str, before_id: str | None) -> list[Job]:
        """Running jobs, by id: those that holds speak of, as their records say."""
        store = self._store
        named = {job_id for _, hold in await store.reader.holds() for job_id, _ in hold.leases}
        ids = sorted(job_id for job_id in named if after_id < job_id and (before_id is None or job_id < before_id))
        found = []
        for start in range(0, len(ids), BATCH):
            page = ids[start : start + BATCH]
            standings = await store.reader.standings(page)
            for job_id in page:
                standing = standings.get(job_id)
                record = standing.last.record if standing is not None else None
                if standing is not None and record is not None and record.leased and standing.job is not None:
                    found.append(standing.job)
        return found

    async def _some(self, ids: Span, limit: int) -> list[Job]:
        """The first `limit` of these that are here still."""
        found: list[Job] = []
        size = min(BATCH, limit)
        for start in range(0, len(ids), max(size, 1)):
            if len(found) >= limit:
                break
            page = ids.first(start, size)
            standings = await self._store.reader.standings(page)
            found += [job for job_id in page if job_id in standings and (job := standings[job_id].job) is not None]
        return found[:limit]

    async def _latest(self, job_id: str, standing: Standing, confirmed: Confirmed) -> Job | None:
        """As the last record says that holds the job and that the master has not got yet."""
        record, seq = standing.last.record, standing.last.seq
        if record is None or seq <= confirmed.cursor:
            return None
        if record.kind and record.job is not None:
            return None if seq in confirmed.beyond else record.job
        store = self._store
        stream, subject = store.subjects.out_stream, store.subjects.out(job_id)
        older = await store.reader.every(stream, subject, confirmed.cursor + 1)
        for stored in reversed(older):
            before = decode_record(stored.data)
            if before.kind and before.job is not None and stored.seq not in confirmed.beyond:
                return before.job
        return None
