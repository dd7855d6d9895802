"""Ageing: no job waits for ever behind jobs of higher priority. One that has been ready for long goes up a rank, and
again after as long."""

from collections.abc import Sequence

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import AmendAnswer, Amendment
from jobmaster.model.ids import floor_id
from jobmaster.model.job import Job
from jobmaster.model.priority import Priority
from jobmaster.model.states import JobState

PAGE = 500
MOST_RAISED = 100
"""A pass: ageing is for the few that are passed over, not for a backlog as a whole."""
POLL_SECONDS = 10.0

_log = structlog.get_logger("jobmaster.ageing")


def aged(job: Job, now_us: int, after_us: int) -> int:
    """The rank that a job is due which has been ready since `due_us`: at least `LOW` after that time, `MEDIUM` after
    twice that, and so on. It says the same however often it is asked, and by whomever."""
    steps = (now_us - job.due_us) // after_us
    return min(job.priority, max(Priority.CRITICAL, Priority.VERY_LOW - steps))


class Ageing:
    """Looks through the oldest jobs of an agent, and only while its lanes say that some have waited for so long."""

    def __init__(self, agent: AgentTransport, after_us: int) -> None:
        self._agent = agent
        self._after_us = after_us

    async def run(self) -> float:
        """One pass."""
        now_us = await self._agent.store_now_us()
        starving = {
            lane.lane
            for lane in await self._agent.stats()
            if lane.oldest_ready_us is not None and not lane.paused and now_us - lane.oldest_ready_us >= self._after_us
        }
        if not starving:
            return POLL_SECONDS
        before_id = floor_id(now_us - self._after_us)
        found = [job for job in await self._agent.jobs("", before_id, PAGE) if job.lane in starving]
        raised = await self._raise(found, now_us)
        if raised:
            _log.info("ageing.raised", agent=self._agent.name, jobs=raised)
        return POLL_SECONDS

    async def _raise(self, jobs: Sequence[Job], now_us: int) -> int:
        waiting = [job for job in jobs if job.state is JobState.QUEUED and job.due_us <= now_us]
        changes = [
            Amendment(id=job.id, version=job.version, priority=rank)
            for job in waiting
            if (rank := aged(job, now_us, self._after_us)) < job.priority
        ][:MOST_RAISED]
        # Claimed or changed meanwhile: then it is not what was seen, and is looked at again if it still waits.
        return (await self._agent.amend(changes)).count(AmendAnswer.CHANGED) if changes else 0
