"""Enqueueing, one or many: from items to jobs, and each to where it belongs.

A bulk goes chunk by chunk, so that neither the caller's items nor the jobs are ever held all at once; a chunk is
written in few batches, as its jobs are gathered by plan, which gives them one route.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from jobmaster.client.definitions import Definitions
from jobmaster.client.drafting import Drafting, Plan, Route
from jobmaster.client.placing import Placing
from jobmaster.client.times import delay_us, to_us
from jobmaster.enqueue import Enqueue
from jobmaster.listeners import EventKind, JobEvent, Listeners
from jobmaster.model.errors import JobMasterError, OptionInvalid
from jobmaster.model.job import Job
from jobmaster.placement import Destination, destination

CHUNK = 2_000
"""Jobs per write: enough to spread a statement's cost, few enough to stay out of the way of others."""

BREATH = 250
"""Jobs drafted before others on this event loop get their turn."""

Written = tuple[list[str], list[str | None]]
"""Ids, and the agent of each; None where it is held on the master."""


class Writing:
    """Writes new jobs."""

    def __init__(
        self,
        definitions: Definitions,
        drafting: Drafting,
        placing: Placing,
        listeners: Listeners,
        threshold_us: int,
    ) -> None:
        self._definitions = definitions
        self._drafting = drafting
        self._placing = placing
        self._listeners = listeners
        self._threshold_us = threshold_us

    async def one(self, item: Enqueue) -> tuple[str, str | None]:
        """Id and agent of the job that was stored."""
        ids, agents = await self._chunk([item])
        return ids[0], agents[0]

    async def many(self, items: Iterable[Enqueue] | AsyncIterable[Enqueue]) -> AsyncIterator[Written]:
        """What was stored, chunk by chunk."""
        stored = 0
        async for chunk in _chunks(items):
            try:
                written = await self._chunk(chunk)
            except JobMasterError as error:
                error.add_note(
                    f"the {stored:,} items before it are stored; of the chunk of {len(chunk):,} it is in some may be"
                )
                raise
            stored += len(chunk)
            yield written

    async def _chunk(self, items: Sequence[Enqueue]) -> Written:
        """Everything is checked before the first write."""
        now_us = self._placing.now_us()
        known, plan_of, draft = self._definitions.known, self._drafting.plan, self._drafting.job
        drafts: dict[int, tuple[Plan, list[Job]]] = {}
        ids: list[str] = []
        plan: Plan | None = None
        plan_is_for: object = None
        for item in items:
            if not isinstance(item, Enqueue):
                raise OptionInvalid("items", item, "Enqueue(handler, data, …) for each job")
            handler, options = item.handler, item.options
            # In a bulk the next item is mostly like the last one: then its plan need not be looked up.
            if plan is None or options or handler is not plan_is_for:
                plan = plan_of(known(handler) or await self._definitions.recipe(handler), options)
                plan_is_for = None if options else handler
            due_us = now_us if item.when is None else _due_us(item.when, now_us)
            job = draft(plan, item.data, due_us, now_us, options)
            ids.append(job.id)
            if not len(ids) % BREATH:
                await asyncio.sleep(0)
            # By identity, as hashing a plan costs more than all the rest of this line.
            group = drafts.get(id(plan))
            if group is None:
                group = drafts[id(plan)] = (plan, [])
            group[1].append(job)
        by_route: dict[Route, list[Job]] = {}
        for drafted, jobs in drafts.values():
            by_route.setdefault(drafted.route, []).extend(jobs)
        placed: dict[str, str] = {}
        for route, jobs in by_route.items():
            placed |= await self._write(route, jobs, now_us)
        return ids, [placed.get(job_id) for job_id in ids]

    async def _write(self, route: Route, jobs: list[Job], now_us: int) -> dict[str, str]:
        placed: dict[str, str] = {}
        horizon_us = now_us + self._threshold_us
        far = [job for job in jobs if job.due_us > horizon_us]
        near = [job for job in jobs if job.due_us <= horizon_us] if far else jobs
        for part in (near, far):
            if not part:
                continue
            match destination(part[0].due_us, now_us, self._threshold_us, route.through_master):
                case Destination.AGENT:
                    placed |= await self._placing.put(route, part)
                case Destination.HAND_OFF:
                    placed |= await self._placing.through_master(route, part)
                case Destination.HELD:
                    await self._placing.hold(part)
            self._tell(part, placed)
        return placed

    def _tell(self, jobs: Sequence[Job], placed: dict[str, str]) -> None:
        if self._listeners.wants(EventKind.ENQUEUED):
            for job in jobs:
                self._listeners.emit(
                    JobEvent(
                        kind=EventKind.ENQUEUED,
                        job_id=job.id,
                        handler=job.handler,
                        lane=job.lane,
                        agent=placed.get(job.id),
                    )
                )


def _due_us(when: datetime | timedelta, now_us: int) -> int:
    """The past means now."""
    if isinstance(when, timedelta):
        return now_us + delay_us("when", when, now_us)
    return max(to_us("when", when), now_us)


async def _chunks(items: Iterable[Enqueue] | AsyncIterable[Enqueue]) -> AsyncIterator[list[Enqueue]]:
    if isinstance(items, AsyncIterable):
        chunk: list[Enqueue] = []
        async for item in items:
            chunk.append(item)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
        return
    source = iter(items)
    while chunk := list(islice(source, CHUNK)):
        yield chunk
