"""Enqueueing, one or many: from items to jobs, and each to where it belongs.

A bulk goes chunk by chunk, so that neither the caller's items nor the jobs are ever held all at once; a chunk is
written in few batches, as its jobs are gathered by plan, which gives them one route. While the stores write one, the
next is drafted.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice

from jobmaster.client.definitions import Definitions
from jobmaster.client.drafting import Drafting, Plan, Route
from jobmaster.client.times import delay_us, to_us
from jobmaster.enqueue import Enqueue
from jobmaster.model.errors import JobMasterError, OptionInvalid
from jobmaster.model.job import Job

CHUNK = 2_000
"""Jobs per write: enough to spread a statement's cost, few enough to stay out of the way of others."""

BREATH = 250
"""Jobs drafted before others on this event loop get their turn."""

Written = tuple[list[str], list[str | None]]
"""Ids, and the agent of each; None where it is held on the master."""

Drafted = tuple[list[str], dict[Route, list[Job]], int]
"""Ids, the jobs by where they go, and when they were drafted."""

Write = Callable[[Route, Sequence[Job], int], Awaitable[dict[str, str]]]
"""Stores jobs of one route, drafted at a given time; the agent of each by id, where there is one."""


class Writing:
    """Writes new jobs."""

    def __init__(
        self,
        definitions: Definitions,
        drafting: Drafting,
        now_us: Callable[[], int],
        write: Write,
        ahead: bool = True,
    ) -> None:
        """`ahead`: while a chunk is written, the next one's items are taken from the caller already."""
        self._ahead = ahead
        self._definitions = definitions
        self._drafting = drafting
        self._now_us = now_us
        self._write = write

    def by_way_of(self, write: Write) -> "Writing":
        """The same, but that jobs are written by this, on a connection of the caller's. It is left alone while items
        come, which may come by it too."""
        return Writing(self._definitions, self._drafting, self._now_us, write, ahead=False)

    async def one(self, item: Enqueue) -> tuple[str, str | None]:
        """Id and agent of the job that was stored."""
        ids, agents = await self._store(await self._draft([item]))
        return ids[0], agents[0]

    async def many(self, items: Iterable[Enqueue] | AsyncIterable[Enqueue]) -> AsyncIterator[Written]:
        """What was stored, chunk by chunk."""
        stored = 0
        chunks = _chunks(items)
        # An async generator of the caller's is only asked in his own task, as its cancel scopes would not nest else.
        ahead = self._ahead and not isinstance(items, AsyncIterable)
        drafting: asyncio.Task[Drafted | None] | None = None
        try:
            while (drafted := await (drafting or self._next(chunks))) is not None:
                drafting = asyncio.create_task(self._next(chunks), name="jobmaster:many") if ahead else None
                written = await self._store(drafted)
                stored += len(drafted[0])
                yield written
        except JobMasterError as error:
            error.add_note(f"the {stored:,} items before it are stored; of the chunk it is in some may be")
            raise
        finally:
            if drafting is not None:
                drafting.cancel()
                await asyncio.gather(drafting, return_exceptions=True)

    async def _next(self, chunks: AsyncIterator[list[Enqueue]]) -> Drafted | None:
        """The next chunk as jobs; None after the last."""
        chunk = await anext(chunks, None)
        return None if chunk is None else await self._draft(chunk)

    async def _draft(self, items: Sequence[Enqueue]) -> Drafted:
        """Everything is checked before the first write."""
        now_us = self._now_us()
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
        return ids, by_route, now_us

    async def _store(self, drafted: Drafted) -> Written:
        ids, by_route, now_us = drafted
        placed: dict[str, str] = {}
        for route, jobs in by_route.items():
            placed |= await self._write(route, jobs, now_us)
        return ids, [placed.get(job_id) for job_id in ids]


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
