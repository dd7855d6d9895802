"""Where is this job? It may be on the master, on an agent, or just moving between them.

The order of questions is what makes the answer right: the master; unless that settles it the agents; and the master
again, since a job that left its agent meanwhile is there now. An agent that does not answer makes the answer unknown,
never "not found".
"""

import asyncio
from collections.abc import Sequence

from jobmaster.agents_open import Agents
from jobmaster.contracts.master import MasterStore
from jobmaster.model.errors import AgentUnreachable, JobNotFound, MasterUnavailable, StoreError
from jobmaster.model.job import Job, Run
from jobmaster.model.states import JobState

WITH_AGENT = frozenset({JobState.DISPATCHING, JobState.QUEUED, JobState.RUNNING})
"""States in which the agent's word counts, and the master's is a copy."""
RUNS_SECONDS = 0.5
"""How long to wait for the record of a run that the agent has accepted but the master not yet read."""
FAILURE_SECONDS = 5.0
"""The same for a failure that is raised: without that record it has no traceback."""
RUNS_POLL_SECONDS = 0.01


def newest(copies: Sequence[Job]) -> Job:
    """The copy written last; of equal ones the first."""
    return max(copies, key=lambda job: (job.epoch, job.version))


class Lookup:
    """Finds single jobs over the master and all agents."""

    def __init__(self, master: MasterStore, agents: Agents) -> None:
        self._master = master
        self._agents = agents

    async def find(self, job_id: str) -> Job:
        """The job as it stands. Raises `JobNotFound`; `AgentUnreachable` or `MasterUnavailable` where only a store
        that did not answer could know."""
        first, _ = await self._ask_master(job_id)
        if first is not None and first.state not in WITH_AGENT:
            return first
        bound = first.agent if first is not None else None
        names = (bound,) if bound is not None and bound in self._agents else self._agents.names
        answers, failed = await self._agents.ask(names, lambda agent: agent.find([job_id]))
        copies = [copies[0] for copies in answers.values() if copies[0] is not None]
        if copies:
            return newest([*copies, first] if first is not None else copies)
        again, away = await self._ask_master(job_id)
        if again is not None and not (failed and again.state in WITH_AGENT):
            return again
        if failed:
            name, error = next(iter(failed.items()))
            problem = error.problem if isinstance(error, AgentUnreachable) else str(error)
            raise AgentUnreachable(name, problem, f"whether it holds job {job_id} is unknown") from error
        if away is not None:
            raise away
        raise JobNotFound(job_id, "no agent has it, and it is not in the history; ended jobs are kept until retention")

    async def find_on(self, agent: str, job_id: str) -> Job | None:
        """What one agent knows of it. Raises what the agent raises."""
        (job,) = await self._agents[agent].find([job_id])
        return job

    async def runs(self, job: Job, within: float = RUNS_SECONDS) -> list[Run]:
        """Its recorded runs by token, as far as the master can say. If the job has just ended, waits so many seconds
        for the record of its last run, which comes through the agent's outbox."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + within
        while True:
            try:
                runs = await self._master.runs(job.id)
            except StoreError:
                return []
            complete = not job.terminal or job.claim_seq == 0 or (runs and runs[-1].token >= job.token)
            if complete or not await self._may_still_come(job) or loop.time() >= give_up:
                return runs
            await asyncio.sleep(RUNS_POLL_SECONDS)

    async def _may_still_come(self, job: Job) -> bool:
        """Whether the end of this job is still in its agent's outbox: once the history has it, so it has its runs."""
        known, _ = await self._ask_master(job.id)
        return known is None or not known.terminal

    async def _ask_master(self, job_id: str) -> tuple[Job | None, MasterUnavailable | None]:
        try:
            (job,) = await self._master.get([job_id])
        except MasterUnavailable as error:
            return None, error
        except StoreError as error:
            return None, MasterUnavailable(str(error))
        return job, None
