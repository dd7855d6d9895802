"""Waiting for jobs to end.

All waiters of one agent share one watch: its hint says that something ended, one `find` says what. A hint may be lost,
so the question is asked every second anyway. The watch is set before the question, so an end between the two is seen.
A caller waits in real time, whatever clock the jobs live by.
"""

import asyncio

from jobmaster.agents_open import Agents
from jobmaster.client.lookup import WITH_AGENT, Lookup
from jobmaster.contracts.agent import AgentTransport
from jobmaster.model.errors import StoreError
from jobmaster.model.job import Job

WATCH_SECONDS = 1.0
HELD_POLL_SECONDS = 0.5
"""How often a job is looked at that is on no agent yet."""
MOVING_SECONDS = 0.05
"""Pause where the master says "on that agent" and the agent says no: it is between the two."""
AWAY_SECONDS = 0.25
"""Pause after a store did not answer."""
FIND_AT_ONCE = 500
SECONDS_PER_WAITER = 3e-5
MOST_SPACING_SECONDS = 0.05
"""Each end makes all that are waited for be asked about: with many, rounds are spaced so that this costs little."""


class Results:
    """Who waits for what, per agent. For one event loop; `close` ends the watches."""

    def __init__(self, lookup: Lookup, agents: Agents) -> None:
        self._lookup = lookup
        self._agents = agents
        self._watches: dict[str, _Watch] = {}

    async def wait(self, job_id: str, agent: str | None) -> Job:
        """The job once it has ended. Raises `JobNotFound`; while stores do not answer it goes on waiting."""
        while True:
            if agent is not None and agent in self._agents:
                job = await self._watch(agent).ended(job_id)
                if job is not None:
                    return job
            try:
                job = await self._lookup.find(job_id)
            except StoreError:
                await asyncio.sleep(AWAY_SECONDS)
                continue
            if job.terminal:
                return job
            if job.state not in WITH_AGENT:
                agent = None
                await asyncio.sleep(HELD_POLL_SECONDS)
            elif job.agent == agent:
                await asyncio.sleep(MOVING_SECONDS)
            else:
                agent = job.agent

    def _watch(self, agent: str) -> "_Watch":
        watch = self._watches.get(agent)
        if watch is None:
            watch = self._watches[agent] = _Watch(self._agents[agent])
        return watch

    async def close(self) -> None:
        """Nobody waits any more: waiters are cancelled."""
        for watch in self._watches.values():
            await watch.close()


class _Watch:
    """The waiters of one agent. Its task lives while there are any."""

    def __init__(self, agent: AgentTransport) -> None:
        self._agent = agent
        self._waiters: dict[str, list[asyncio.Future[Job | None]]] = {}
        self._joined = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ended(self, job_id: str) -> Job | None:
        """The job once it has ended there; None once the agent does not have it."""
        waiter: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, []).append(waiter)
        self._joined.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"results of {self._agent.name}")
        try:
            return await waiter
        finally:
            waiters = self._waiters.get(job_id, [])
            if waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[job_id]

    async def close(self) -> None:
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiters:
            self._joined.clear()
            hint = asyncio.create_task(self._agent.watch(frozenset(self._waiters), WATCH_SECONDS))
            joined = asyncio.create_task(self._joined.wait())
            try:
                # Let the watch begin before the question is asked.
                await asyncio.sleep(0)
                await self._look(list(self._waiters))
                if self._waiters:
                    await asyncio.wait([hint, joined], return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(min(MOST_SPACING_SECONDS, len(self._waiters) * SECONDS_PER_WAITER))
                    if hint.done():
                        hint.result()
            except StoreError:
                await asyncio.sleep(AWAY_SECONDS)
            finally:
                hint.cancel()
                joined.cancel()
                await asyncio.wait([hint, joined])
                if not hint.cancelled():
                    # Looked at, so that it is not reported as never retrieved.
                    hint.exception()

    async def _look(self, ids: list[str]) -> None:
        for start in range(0, len(ids), FIND_AT_ONCE):
            piece = ids[start : start + FIND_AT_ONCE]
            for job_id, job in zip(piece, await self._agent.find(piece), strict=True):
                if job is None or job.terminal:
                    for waiter in self._waiters.pop(job_id, ()):
                        if not waiter.done():
                            waiter.set_result(job)
