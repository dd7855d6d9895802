"""Operations: what those who run a cluster ask beyond single jobs: who works, how the agents are, what died.

Reads only. Each answer says what it could not learn rather than leaving it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from jobmaster.agents_open import Agents
from jobmaster.client.listing import MOST, Listing
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Control, ControlKind, JobFilter, StoreMode
from jobmaster.model.fingerprint import fingerprint
from jobmaster.model.states import FailReason, JobState
from jobmaster.views import error_parts
from jobmaster.workers import WorkerInfo, Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentInfo:
    """An agent as this process sees it."""

    name: str
    reachable: bool
    problem: str | None = None
    """Why it is not reachable."""
    mode: StoreMode | None = None
    paused_lanes: tuple[str, ...] = ()
    shares_master: bool = False
    """It lives in the master's own database."""
    ready: int = 0
    delayed: int = 0
    running: int = 0
    parked: int = 0
    """Waiting for a worker that knows their handler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """Failed jobs of one handler and reason, whose errors look the same but for numbers, ids and quoted text."""

    fingerprint: str
    """Names the group: `scheduler.bulk.retry(fingerprint=…)` runs its jobs again."""
    handler: str
    reason: FailReason
    error_type: str | None
    count: int
    newest_id: str
    newest_at: datetime
    newest_error: str | None


@dataclass(frozen=True, slots=True)
class DeadLetterReport:
    """`complete`: all failed jobs were looked at, not only the newest."""

    groups: tuple[DeadLetters, ...]
    complete: bool


class Operations:
    """The reads of one cluster."""

    def __init__(self, master: MasterStore, agents: Agents, workers: Workers) -> None:
        self._agents = agents
        self._workers = workers
        self._listing = Listing(master, agents)

    async def workers(self) -> tuple[WorkerInfo, ...]:
        """Those registered on the agents that answer, by agent and name."""
        return await self._workers.list()

    async def agents(self) -> tuple[AgentInfo, ...]:
        """All agents of this cluster, reachable or not."""
        states, failed = await self._agents.ask(
            self._agents.names, lambda agent: agent.control(Control(ControlKind.STATE))
        )
        stats, failed_too = await self._agents.ask(tuple(states), lambda agent: agent.stats())
        problems: Mapping[str, Exception] = {**failed, **failed_too}
        infos = []
        for name in self._agents:
            if name in problems:
                infos.append(AgentInfo(name=name, reachable=False, problem=str(problems[name])))
                continue
            infos.append(
                AgentInfo(
                    name=name,
                    reachable=True,
                    mode=states[name].mode,
                    paused_lanes=tuple(sorted(states[name].paused_lanes)),
                    shares_master=self._agents.shares_master(name),
                    ready=sum(lane.ready for lane in stats[name]),
                    delayed=sum(lane.delayed for lane in stats[name]),
                    running=sum(lane.leased for lane in stats[name]),
                    parked=sum(lane.parked for lane in stats[name]),
                )
            )
        return tuple(infos)

    async def unserved_lanes(self) -> tuple[str, ...]:
        """Lanes in which jobs are ready that no live worker of their agent serves."""
        served = {(worker.agent, lane) for worker in await self.workers() if worker.alive for lane in worker.lanes}
        answers, _ = await self._agents.ask(self._agents.names, lambda agent: agent.stats())
        waiting = {(agent, lane.lane) for agent, lanes in answers.items() for lane in lanes if lane.ready + lane.parked}
        return tuple(sorted({lane for _, lane in waiting - served}))

    async def dead_letters(self, *, handler: str | None = None, look_at: int = 5 * MOST) -> DeadLetterReport:
        """Failed jobs in groups, the largest first, from the newest `look_at` of them."""
        groups: dict[str, DeadLetters] = {}
        where = JobFilter(states=frozenset({JobState.FAILED}), handler=handler)
        cursor: str | None = None
        seen = 0
        while True:
            page = await self._listing.page(where, cursor, min(MOST, max(1, look_at - seen)))
            for job in page.jobs:
                kind, _ = error_parts(job.error)
                assert job.reason is not None
                assert job.finished_at is not None
                key = fingerprint(job.handler, job.reason, job.error)
                known = groups.get(key)
                # Newest first: the first of a group is its newest.
                groups[key] = DeadLetters(
                    fingerprint=key,
                    handler=job.handler,
                    reason=job.reason,
                    error_type=kind,
                    count=known.count + 1 if known else 1,
                    newest_id=known.newest_id if known else job.id,
                    newest_at=known.newest_at if known else job.finished_at,
                    newest_error=known.newest_error if known else job.error,
                )
            seen += len(page.jobs)
            cursor = page.cursor
            if cursor is None or seen >= look_at:
                break
        largest_first = sorted(groups.values(), key=lambda group: (-group.count, group.handler))
        return DeadLetterReport(tuple(largest_first), complete=cursor is None)
