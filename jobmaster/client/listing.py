"""Lists over the master and all agents, as one: newest id first, keyset-paged, each job once.

Every source is read with its own opaque cursor. Their pages are merged by id; a page of the whole stops at the highest
id that some source has not read past, as beyond it that source could still have more. The cursor of the whole
holds each source's cursor and the last id given out, so a source's page is read again where it was only used in part.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from jobmaster.agents_open import Agents
from jobmaster.client.expectation import States, states_of
from jobmaster.client.lookup import WITH_AGENT, newest
from jobmaster.client.times import to_us
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.model import portable
from jobmaster.model.errors import DataInvalid, OptionInvalid, Problem, StoreError
from jobmaster.model.job import Job
from jobmaster.model.names import check_key, check_name, check_tags
from jobmaster.views import JobPage, job_info

MOST = 1_000
"""Jobs per page."""
READS = 20
"""How many pages of a source are read for one page of the whole; a source may give empty pages while it searches."""
MASTER = ""
"""The master's name among the sources; no agent can have it."""

ReadPage = Callable[[JobFilter, str | None, int], Awaitable[Page]]


class _Position(Struct, frozen=True):
    """What a cursor says."""

    last: str
    """Only ids below this are wanted."""
    sources: dict[str, str | None]
    """The cursor to read each source with; a source that is done is missing."""


class _Source:
    """One store's matching jobs, newest first, with a look ahead."""

    def __init__(self, read: ReadPage, where: JobFilter, cursor: str | None, below: str, reads: int) -> None:
        self._read = read
        self._where = where
        self._below = below
        self.cursor: str | None = cursor
        """Reads the page that the first of `jobs` is on."""
        self.jobs: list[Job] = []
        self._next = cursor
        self._done = False
        self._reads_left = reads

    async def fill(self, limit: int) -> None:
        """Have a job at hand, if there is one and it is found in time."""
        while not self.jobs and not self._done and self._reads_left:
            self._reads_left -= 1
            page = await self._read(self._where, self._next, limit)
            self.cursor, self._next = self._next, page.cursor
            self._done = page.cursor is None
            self.jobs = [job for job in page.jobs if job.id < self._below]
        if not self.jobs and not self._done:
            self.cursor = self._next

    @property
    def exhausted(self) -> bool:
        return self._done and not self.jobs

    @property
    def searching(self) -> bool:
        """It has more, but has not come to it yet."""
        return not self._done and not self.jobs


class Listing:
    """Pages over everything."""

    def __init__(self, master: MasterStore, agents: Agents, reads: int = READS) -> None:
        self._master = master
        self._agents = agents
        self._reads = reads

    async def page(self, where: JobFilter, cursor: str | None, limit: int) -> JobPage:
        """Up to `limit` jobs; fewer, even none, with a cursor means that the search goes on there. Raises
        `OptionInvalid` for a foreign cursor, `MasterUnavailable`."""
        found, unreachable = await self.read(where, cursor, limit)
        return JobPage(tuple(job_info(job) for job in found.jobs), found.cursor, unreachable)

    async def read(self, where: JobFilter, cursor: str | None, limit: int) -> tuple[Page, tuple[str, ...]]:
        """The same as stored, and the agents that did not answer."""
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
            raise OptionInvalid("limit", limit, f"a number from 1 to {MOST:,}")
        position = self._start(where) if cursor is None else _decode(cursor)
        sources = {
            name: _Source(read, where, position.sources[name], position.last, self._reads)
            for name, read in self._readers().items()
            if name in position.sources
        }
        unreachable = sorted(set(position.sources) - set(sources))
        given: dict[str, Job] = {}
        from_agents: set[str] = set()
        last = position.last
        while len(given) < limit:
            for name, source in list(sources.items()):
                try:
                    await source.fill(limit)
                except StoreError:
                    if name == MASTER:
                        raise
                    unreachable.append(name)
                    del sources[name]
            heads = [source.jobs[0].id for source in sources.values() if source.jobs]
            if not heads or any(source.searching for source in sources.values()):
                break
            last = max(heads)
            copies = [source.jobs.pop(0) for source in sources.values() if source.jobs and source.jobs[0].id == last]
            given[last] = newest(copies)
        left = {name: source.cursor for name, source in sources.items() if not source.exhausted}
        jobs = await self._current(list(given.values()), from_agents, where)
        return Page(jobs, _encode(_Position(last, left)) if left else None), tuple(unreachable)

    def _start(self, where: JobFilter) -> _Position:
        names = [MASTER]
        if not where.states or where.states & WITH_AGENT:
            names += [name for name in self._agents if where.agent in (None, name)]
        return _Position("~", dict.fromkeys(names))

    def _readers(self) -> dict[str, ReadPage]:
        return {MASTER: self._master.page, **{name: self._agents[name].peek for name in self._agents}}

    async def _current(self, jobs: list[Job], fresh_ids: set[str], where: JobFilter) -> list[Job]:
        """The master's copies of jobs on agents may be old: ask the agents, and drop what does not match any more."""
        ids: dict[str, list[str]] = {}
        for job in jobs:
            if job.id in fresh_ids or job.state not in WITH_AGENT:
                continue
            if job.agent is not None and job.agent in self._agents:
                ids.setdefault(job.agent, []).append(job.id)
        fresh: dict[str, Job] = {}
        for name, wanted in ids.items():
            try:
                found = await self._agents[name].find(wanted)
            except StoreError:
                continue
            fresh.update((job.id, job) for job in found if job is not None)
        now = [newest([fresh[job.id], job]) if job.id in fresh else job for job in jobs]
        return [job for job in now if not where.states or job.state in where.states]


def _encode(position: _Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def _decode(cursor: object) -> _Position:
    try:
        if not isinstance(cursor, str) or len(cursor) > 20_000:
            raise ValueError
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Position)
    except (ValueError, msgspec.MsgspecError):
        raise OptionInvalid("cursor", cursor, "the cursor of an earlier page, unchanged") from None


def job_filter(
    *,
    state: States | None,
    handler: str | None,
    lane: str | None,
    agent: str | None,
    schedule: str | None,
    tag: str | None,
    metadata: Mapping[str, Any] | None,
    since: datetime | None,
    limit_bytes: int,
) -> JobFilter:
    """The conditions of a list, checked: what could never match is an error, not an empty list."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise DataInvalid([Problem("$", "expected a mapping from names to values")], "metadata")
    return JobFilter(
        states=states_of("state", state),
        handler=None if handler is None else check_name("handler", handler),
        lane=None if lane is None else check_name("lane", lane),
        agent=None if agent is None else check_name("agent", agent),
        schedule=None if schedule is None else check_key("schedule key", schedule),
        tag=None if tag is None else check_tags([tag])[0],
        metadata={} if not metadata else portable.decode(portable.encode(metadata, limit=limit_bytes, what="metadata")),
        since_us=None if since is None else to_us("since", since),
    )
