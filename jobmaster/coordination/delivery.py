"""Delivery: the second and third write of a hand-off, per agent.

A job that is `dispatching` on the master is put on its agent and then noted as `queued`. Every step may be repeated by
anybody: the same epoch goes to the same agent, which answers `duplicate` for what it has and `tombstoned` for what has
ended there. Each agent has a delivery of its own, so that one that does not answer delays no other.
"""

from collections import deque
from collections.abc import Callable, Sequence

import structlog
from msgspec import structs

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import PutAnswer, Revoke, RevokeAnswer, RevokeKind
from jobmaster.model.errors import AgentUnreachable
from jobmaster.model.states import JobState
from jobmaster.telemetry.failpoints import failpoint
from jobmaster.telemetry.probes import probe

BATCH = 1_000
BACKLOG = 20_000
"""Placements kept for an agent that does not answer; the rest is found again as overdue."""
OVERDUE_SECONDS = 5.0
DISPATCH_US = 30_000_000
"""How long a dispatcher owns a hand-off before others may take it over."""

_log = structlog.get_logger("jobmaster.handoff")


async def deliver(
    master: MasterStore, agent: AgentTransport, placements: Sequence[Placement], *, leaving: bool = False
) -> None:
    """Put dispatching jobs on their agent and note on the master that they are there. From an agent that is `leaving`
    they are taken back instead.

    Afterwards each is `queued`, or was, or is on its way back to `held` because its put deadline had passed. One the
    agent refuses for its content stays `dispatching` and is logged. Raises what the stores raise; then repeat it.
    """
    if leaving:
        there = await _take_back(agent, [(placement.job.id, placement.job.epoch) for placement in placements])
        if there:
            await master.dispatched(there)
        return
    by_deadline: dict[int, list[Placement]] = {}
    for placement in placements:
        assert placement.put_deadline_us is not None, placement.job.id
        by_deadline.setdefault(placement.put_deadline_us, []).append(placement)
    for deadline_us, group in by_deadline.items():
        jobs = [structs.replace(placement.job, state=JobState.QUEUED) for placement in group]
        answers = await agent.put(jobs, deadline_us)
        failpoint("handoff.put")
        there = []
        late: list[tuple[str, int]] = []
        for job, answer in zip(jobs, answers, strict=True):
            match answer:
                case PutAnswer.STALE_PUT:
                    late.append((job.id, job.epoch))
                case PutAnswer.CONFLICT:
                    _log.error(
                        "handoff.conflict",
                        job_id=job.id,
                        agent=agent.name,
                        epoch=job.epoch,
                        remedy="delete one of both",
                    )
                case PutAnswer.DUPLICATE:
                    probe("duplicate_put")
                    there.append((job.id, job.epoch))
                case PutAnswer.STORED | PutAnswer.STALE_EPOCH | PutAnswer.TOMBSTONED:
                    there.append((job.id, job.epoch))
        there += await _take_back(agent, late)
        if there:
            await master.dispatched(there)
        failpoint("handoff.queued")


async def _take_back(agent: AgentTransport, late: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Make sure that a late put can't come any more; those that turn out to have arrived before."""
    if not late:
        return []
    revocations = await agent.revoke([Revoke(job_id, epoch, RevokeKind.MOVE) for job_id, epoch in late])
    return [
        key
        for key, revocation in zip(late, revocations, strict=True)
        if revocation.answer in {RevokeAnswer.RUNNING, RevokeAnswer.SETTLED}
    ]


class Delivery:
    """Delivers one agent's placements: those offered here, and those whose dispatcher went silent."""

    def __init__(
        self,
        master: MasterStore,
        agent: AgentTransport,
        clock: Clock,
        leaving: Callable[[], bool] = lambda: False,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """`leaving`: whether the agent leaves, so that its placements have to go elsewhere. `failed`: called when it
        took none, before others are drawn for it."""
        self.wake: Callable[[], None] = lambda: None
        """Set by whoever runs this duty in a loop."""
        self._master = master
        self._agent = agent
        self._clock = clock
        self._leaving = leaving
        self._failed = failed
        self._offered: deque[Placement] = deque()
        self._look_for_overdue = clock.mono()

    def offer(self, placements: Sequence[Placement]) -> None:
        """Deliver these soon; their first write is committed. What exceeds the backlog is left to be found overdue."""
        room = max(0, BACKLOG - len(self._offered))
        self._offered.extend(placements[:room])
        self.wake()

    async def run(self) -> float:
        """One pass."""
        batch = [self._offered[index] for index in range(min(BATCH, len(self._offered)))]
        if batch:
            await self._deliver_offered(batch)
            return 0
        wait = self._look_for_overdue - self._clock.mono()
        if wait > 0:
            return wait
        overdue = await self._master.overdue(self._agent.name, BATCH)
        if overdue:
            _log.info("handoff.taken_over", agent=self._agent.name, jobs=len(overdue))
            await deliver(self._master, self._agent, overdue, leaving=self._leaving())
            return 0
        self._look_for_overdue = self._clock.mono() + OVERDUE_SECONDS
        return OVERDUE_SECONDS

    async def _deliver_offered(self, batch: Sequence[Placement]) -> None:
        try:
            await deliver(self._master, self._agent, batch, leaving=self._leaving())
        except BaseException as error:
            if isinstance(error, AgentUnreachable):
                self._failed()
            # Kept for the next pass while they are ours; afterwards somebody finds them overdue.
            now_us = self._clock.wall_us()
            mine = [placement for placement in batch if (placement.dispatch_until_us or 0) > now_us]
            self._forget(len(batch))
            self._offered.extendleft(reversed(mine))
            raise
        self._forget(len(batch))

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._offered.popleft()
