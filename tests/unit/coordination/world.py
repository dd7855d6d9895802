"""A master, some agents and a clock that stands still, for the tests of duties."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from random import Random
from typing import Any, Self

from jobmaster.agents_open import Agents
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.scheduling import Schedule, TickState
from jobmaster.contracts.values import PUT_WINDOW_US, Settlement, WorkerCard
from jobmaster.coordination.delivery import DISPATCH_US, Delivery
from jobmaster.coordination.handoff import HandOff
from jobmaster.coordination.planner import Planner
from jobmaster.coordination.syncer import Syncer
from jobmaster.master.memory import MemoryMaster
from jobmaster.model.errors import AgentUnreachable, MasterUnavailable
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from jobmaster.model.terms import Terms
from jobmaster.recurrence import Recurrence
from jobmaster.store_time import StoreTime
from jobmaster.testing.clock import ManualClock
from jobmaster_agents.memory import MemoryAgent

SECOND = 1_000_000
TTL_US = 15 * SECOND
THRESHOLD_US = 600 * SECOND


class Switch:
    """A store that can be away: its verbs raise while `away`, before anything is written, or after it for `lost`."""

    def __init__(self, store: Any, error: Callable[[], Exception]) -> None:
        self._store = store
        self._error = error
        self.away = False
        self.lost: set[str] = set()
        self.ahead_us = 0
        """How far the store's clock is ahead of everybody else's."""
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not asyncio.iscoroutinefunction(verb):
            return verb

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.away:
                raise self._error()
            answer = await verb(*args, **kwargs)
            if name in self.lost:
                self.lost.discard(name)
                raise self._error()
            return answer + self.ahead_us if name == "store_now_us" else answer

        return call


class World:
    """Open with `async with`; agents are `one` and `two`."""

    def __init__(self, by_lane: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.clock = ManualClock()
        self.rng = Random(5)
        self.master: Any = Switch(MemoryMaster(self.clock), lambda: MasterUnavailable("switched off"))
        self.switches: dict[str, Any] = {
            name: Switch(MemoryAgent(cluster=new_id(), name=name, clock=self.clock), _away(name))
            for name in ("one", "two")
        }
        self.agents = Agents(self.switches, self.clock, by_lane=by_lane)
        self.deliveries = {name: Delivery(self.master, self.agents[name], self.clock) for name in self.agents}
        self.master_time = StoreTime(self.clock, self.master.store_now_us)

    @property
    def agent(self) -> AgentTransport:
        return self.agents["one"]

    async def __aenter__(self) -> Self:
        await self.master.open()
        await self.agents.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for switch in (self.master, *self.switches.values()):
            switch.away = False
        await self.agents.close()
        await self.master.close()

    def handoff(self) -> HandOff:
        return HandOff(
            self.master,
            self.agents,
            self.deliveries,
            master_time=self.master_time,
            threshold_us=THRESHOLD_US,
            rng=self.rng,
        )

    def syncer(self, mine: str = "w1") -> Syncer:
        return Syncer(
            self.master,
            self.agent,
            self.agents.time("one"),
            self.clock,
            shared=False,
            is_mine=lambda worker: worker == mine,
        )

    def planner(self, *, ahead: int = 0, node: str | None = None) -> Planner:
        return Planner(
            self.master,
            self.agents,
            self.deliveries,
            clock=self.clock,
            rng=self.rng,
            pause_seconds=15,
            ahead_us=ahead * SECOND,
            node=node,
        )

    def job(self, *, due_in: float = 0, agent: str | None = None, **fields: Any) -> Job:
        now_us = self.clock.wall_us()
        due_us = now_us + round(due_in * SECOND)
        fields = {"id": new_id(), "handler": "work", "state": JobState.QUEUED} | fields
        return Job(agent=agent, created_us=now_us, original_due_us=due_us, due_us=due_us, **fields)

    def held(self, *, due_in: float = 0, agent: str | None = None) -> Job:
        return self.job(due_in=due_in, agent=agent, state=JobState.HELD, epoch=0)

    async def hold(self, *jobs: Job) -> None:
        await self.master.insert([Placement(job) for job in jobs])

    def dispatching(self, job: Job) -> Placement:
        now_us = self.clock.wall_us()
        return Placement(job, now_us + DISPATCH_US, now_us + PUT_WINDOW_US)

    async def put(self, *jobs: Job) -> None:
        await self.agent.put(jobs, self.clock.wall_us() + PUT_WINDOW_US)

    async def claim(self, limit: int = 10, worker: str = "w1", handler: str = "work") -> list[Job]:
        return await self.agent.claim(worker, {"default": limit}, frozenset({handler}), limit, TTL_US)

    def settlement(self, job: Job, outcome: RunOutcome = RunOutcome.SUCCEEDED, **fields: Any) -> Settlement:
        now_us = self.clock.wall_us()
        return Settlement(
            id=job.id,
            token=job.token,
            outcome=outcome,
            attempt=job.attempt,
            worker="w1",
            host="here",
            started_us=now_us,
            finished_us=now_us,
            **fields,
        )

    async def known(self, job_id: str) -> Job | None:
        """The job as the master knows it."""
        (job,) = await self.master.get([job_id])
        return job  # type: ignore[no-any-return]  # the switch is untyped

    def card(self, *handlers: str, worker: str = "w1") -> WorkerCard:
        return WorkerCard(
            id=worker,
            name="w",
            host="here",
            pid=1,
            lanes=("default",),
            handlers=handlers,
            slots=1,
            started_us=self.clock.wall_us(),
        )

    async def schedule(
        self,
        key: str = "tick",
        *,
        every: float = 60,
        agent: str | None = None,
        lane: str = "default",
        terms: Terms = Terms(),  # noqa: B008 - frozen
    ) -> Schedule:
        """Save one, and give it as it is stored."""
        rule = Recurrence.of(timedelta(seconds=every)).to_json()
        given = Schedule(key=key, handler="work", recurrence=rule, agent=agent, lane=lane, terms=terms)
        saved = await self.master.save_schedule(given)
        stored: Schedule = saved.schedule
        return stored

    async def ticks(self, key: str = "tick", state: TickState = TickState.PLANNED) -> list[int]:
        """Its ticks in that state, latest first."""
        entries = await self.master.occurrences(key, None, 1_000)
        return [entry.occurrence.tick_us for entry in entries if entry.occurrence.state is state]


def _away(name: str) -> Callable[[], Exception]:
    return lambda: AgentUnreachable(name, "switched off")


async def until_idle(duty: Callable[[], Awaitable[float]], passes: int = 50) -> float:
    """Run passes until one wants to wait; for how long."""
    for _ in range(passes):
        wait = await duty()
        if wait > 0:
            return wait
    raise AssertionError(f"still busy after {passes} passes")
