"""Writing new jobs: to an agent, to the master, or to the master and then to an agent.

One rule rules here: no two agents may ever hold one job. An agent is drawn before the first `put`. If the put was
refused, another may be drawn. If its fate is unknown, the same put is repeated, and if it stays unknown the caller is
told agent and id; only a repetition with that same id on that same agent is safe then.
"""

from collections.abc import Callable, Sequence
from random import Random

from msgspec.structs import replace

from jobmaster.agents_open import Agents
from jobmaster.client.drafting import Route
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import Dispatch, Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import PUT_WINDOW_US, PutAnswer
from jobmaster.model.errors import ConfigurationError, Indeterminate, JobConflict, Refused, StoreError
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.placement import choose_agent
from jobmaster.store_time import StoreTime
from jobmaster.telemetry.probes import probe

TRIES = 5
"""How often a write of unknown fate is repeated before the caller is told."""
PAUSE_SECONDS = 0.05
"""Before the first repetition; doubled with each."""
DISPATCH_US = 30_000_000
"""How long a dispatcher owns a hand-off before any coordinator takes it over."""
SLICE = 250
"""Jobs of a bulk that go to one agent by one draw, where there are several."""

CONFLICT = "another job has this id, with other content"


class Placing:
    """Writes of one scheduler."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        clock: Clock,
        rng: Random,
        wake: Callable[[], None],
        offer: Callable[[Sequence[Placement]], None],
    ) -> None:
        """`offer` hands placements, whose first write is committed, to the duties of this process, if it has any."""
        self._master = master
        self._agents = agents
        self._clock = clock
        self._rng = rng
        self._wake = wake
        self._offer = offer
        self._master_time = StoreTime(clock, master.store_now_us)

    def now_us(self) -> int:
        """Now, in no store's future: what is due now must be ready wherever it goes."""
        return min([self._clock.wall_us(), *(self._agents.time(name).now_us() for name in self._agents)])

    async def put(self, route: Route, jobs: Sequence[Job]) -> dict[str, str]:
        """Store jobs on agents, durably; which one each went to, by id. Raises `Refused` if no agent took them,
        `Indeterminate` with the agent (and the id, if it is one job), `JobConflict` for an id with other content."""
        placed: dict[str, str] = {}
        step = len(jobs) if len(route.candidates) == 1 else SLICE
        for start in range(0, len(jobs), step):
            piece = jobs[start : start + step]
            agent = await self._put_somewhere(route, piece)
            placed.update((job.id, agent) for job in piece)
        return placed

    async def _put_somewhere(self, route: Route, jobs: Sequence[Job]) -> str:
        candidates = list(route.candidates)
        while True:
            agent = await self._draw(candidates)
            try:
                await self._put_on(agent, jobs)
            except Refused:
                self._agents.refused(agent)
                candidates.remove(agent)
                if not candidates:
                    raise
            else:
                self._agents.placed(agent, len(jobs))
                return agent

    async def _draw(self, candidates: Sequence[str]) -> str:
        if len(candidates) == 1:
            return candidates[0]
        agent = choose_agent(candidates, await self._agents.backlog(), self._rng)
        if agent is None:
            raise ConfigurationError(["the cluster has no agent; add one with ClusterBuilder.add_agent(name)"])
        return agent

    async def _put_on(self, agent: str, jobs: Sequence[Job]) -> None:
        """Raises `Refused` only if every try was refused."""
        mine = jobs if jobs[0].agent == agent else [replace(job, agent=agent) for job in jobs]
        deadline_us = await self._agents.time(agent).fresh_us() + PUT_WINDOW_US
        transport = self._agents[agent]
        last: StoreError | None = None
        for number in range(TRIES):
            if number:
                await self._clock.sleep(PAUSE_SECONDS * 2 ** (number - 1))
            try:
                answers = await transport.put(mine, deadline_us)
            except Indeterminate as error:
                last = error
            except Refused:
                # After a try of unknown fate, a refused one says nothing about the first.
                if last is None:
                    raise
            else:
                if last is not None:
                    probe("indeterminate_resolved")
                check_answers(answers, mine)
                return
        only = jobs[0].id if len(jobs) == 1 else None
        raise Indeterminate(f"not answered in {TRIES} tries ({last})", only, agent) from last

    async def hold(self, jobs: Sequence[Job]) -> None:
        """Store jobs on the master, `held` until they are due soon. Raises `MasterUnavailable`, `JobConflict`."""
        await self._insert([Placement(job=replace(job, state=JobState.HELD, epoch=0)) for job in jobs])
        self._wake()

    async def through_master(self, route: Route, jobs: Sequence[Job]) -> dict[str, str]:
        """Store jobs on the master as `dispatching`, then on their agent. They are safe after the first step; if the
        second fails, a coordinator completes it."""
        agent = await self._draw(route.candidates)
        dispatch_until_us = await self._master_time.fresh_us() + DISPATCH_US
        put_deadline_us = await self._agents.time(agent).fresh_us() + PUT_WINDOW_US
        placements = [
            Placement(
                job=replace(job, state=JobState.DISPATCHING, agent=agent),
                dispatch_until_us=dispatch_until_us,
                put_deadline_us=put_deadline_us,
            )
            for job in jobs
        ]
        mine = await self._insert(placements)
        await self.hand_off([placement for placement, is_new in zip(placements, mine, strict=True) if is_new])
        return {job.id: agent for job in jobs}

    async def redispatch(self, job: Job, agent: str) -> bool:
        """Hand a held job over at once; whether this call did it. Otherwise a coordinator does."""
        try:
            deadline_us = await self._agents.time(agent).fresh_us() + PUT_WINDOW_US
            answers = await self._master.dispatch([Dispatch(job.id, job.version, agent, deadline_us)])
            return await self.hand_off([placement for placement in answers if placement is not None])
        except StoreError:
            self._wake()
            return False

    async def hand_off(self, placements: Sequence[Placement]) -> bool:
        """Steps two and three of a hand-off whose first is committed. A failure is left to the coordinators, this
        process's first: others may take over only when `dispatch_until_us` has passed."""
        if not placements:
            return False
        agent = placements[0].job.agent
        deadline_us = placements[0].put_deadline_us
        assert agent is not None
        assert deadline_us is not None
        try:
            await self._agents[agent].put(
                [replace(placement.job, state=JobState.QUEUED) for placement in placements], deadline_us
            )
            await self._master.dispatched([(placement.job.id, placement.job.epoch) for placement in placements])
        except StoreError:
            self._offer(placements)
            self._wake()
            return False
        return True

    async def _insert(self, placements: Sequence[Placement]) -> list[bool]:
        """Which of them this call wrote, as far as can be known: repeated after an unknown fate, a duplicate may well
        be its own."""
        last: StoreError | None = None
        for number in range(TRIES):
            if number:
                await self._clock.sleep(PAUSE_SECONDS * 2 ** (number - 1))
            try:
                answers = await self._master.insert(placements)
            except Indeterminate as error:
                last = error
                continue
            except Refused:
                if last is None:
                    raise
                continue
            if last is not None:
                probe("indeterminate_resolved")
            check_answers(answers, [placement.job for placement in placements])
            return [answer is PutAnswer.STORED or last is not None for answer in answers]
        only = placements[0].job.id if len(placements) == 1 else None
        raise Indeterminate(f"the master did not answer in {TRIES} tries ({last})", only) from last


def check_answers(answers: Sequence[PutAnswer], jobs: Sequence[Job]) -> None:
    """A duplicate, a tombstone and a higher epoch all mean that the job is, or was, safely here."""
    for answer, job in zip(answers, jobs, strict=True):
        if answer is PutAnswer.CONFLICT:
            raise JobConflict(job.id, CONFLICT, "use another id, or the same handler and data")
        if answer is PutAnswer.STALE_PUT:
            raise Refused(f"job {job.id} was refused by agent {job.agent}: it came after its put deadline")
