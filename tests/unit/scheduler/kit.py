"""A scheduler on memory stores whose time is the test's, and a worker that does by hand what a test asks for."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pydantic import SecretStr

from jobmaster.agents_open import Agents
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import Settlement
from jobmaster.handler import JobHandler
from jobmaster.listeners import Listeners
from jobmaster.master import open_master
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason
from jobmaster.placement import agents_by_lane
from jobmaster.registry import build_registry
from jobmaster.scheduler import Scheduler
from jobmaster.settings import AgentSettings, ClusterSettings, StoreSettings, WorkerSettings
from jobmaster.testing.clock import ManualClock
from jobmaster.transports import make_transport
from jobmaster.worker.context import JobContext

TTL_US = 15_000_000
_numbers = itertools.count()
folder: ContextVar[Path | None] = ContextVar("folder", default=None)
"""Where a test's SQLite file is; without one its stores are in memory."""


@dataclass
class Welcome:
    user_id: str
    copies: int = 1


class SendWelcome(JobHandler[Welcome]):
    async def execute(self, job: JobContext[Welcome]) -> str:
        return job.data.user_id


class Plain(JobHandler):
    lane = "plain"

    async def execute(self, job: JobContext) -> None: ...


class Mailer:
    async def send(self, to: str, subject: str = "hello") -> None: ...


class Unregistered(JobHandler[Welcome]):
    async def execute(self, job: JobContext[Welcome]) -> None: ...


class Kit:
    """Everything a scheduler needs, open to the test."""

    def __init__(self, agents: Sequence[str], workers: Sequence[WorkerSettings], folder: Path | None = None) -> None:
        # Memory stores are shared by name for as long as anything holds them: no other test's jobs are wanted here.
        cluster = f"kit-{next(_numbers)}"
        self.clock = ManualClock()
        url = SecretStr(f"sqlite:///{folder / 'kit.db'}" if folder else "memory:")
        self.settings = ClusterSettings(
            name=cluster,
            master=StoreSettings(url=url),
            agents={name: AgentSettings(name=name, url=url) for name in agents},
            workers=tuple(workers),
        )
        self.registry, faults = build_registry([SendWelcome, Plain, Mailer.send], self.settings.defaults)
        assert faults == []
        self.master: Any = open_master(url.get_secret_value(), cluster=cluster, clock=self.clock)
        self.transports: dict[str, Any] = {
            name: make_transport(agent, cluster, self.clock) for name, agent in self.settings.agents.items()
        }
        self.listeners = Listeners()
        self.woken = 0
        self.rng = Random(1)
        self.offered: list[Placement] = []
        self.agents = Agents(
            self.transports, self.clock, self.master.database_key, by_lane=agents_by_lane(self.settings.workers)
        )

    def scheduler(self, master: MasterStore | None = None) -> Scheduler:
        return Scheduler(
            self.settings,
            self.registry,
            self.master if master is None else master,
            self.agents,
            self.listeners,
            self.clock,
            self.rng,
            wake=self._woken,
            offer=self.offered.extend,
        )

    def _woken(self) -> None:
        self.woken += 1

    async def claim(self, agent: str = "a", lanes: Sequence[str] = ("default", "plain"), limit: int = 100) -> list[Job]:
        handlers = frozenset({*self.registry.names, "elsewhere"})
        claimed: list[Job] = await self.transports[agent].claim(
            "worker-1", dict.fromkeys(lanes, limit), handlers, limit, TTL_US
        )
        return claimed

    async def settle(
        self,
        job: Job,
        *,
        agent: str = "a",
        outcome: RunOutcome = RunOutcome.SUCCEEDED,
        reason: FailReason | None = None,
        result: bytes | None = None,
        error: str | None = None,
        detail: bytes | None = None,
    ) -> None:
        settlement = self._settlement(job, outcome, reason, result, error, detail)
        await self.transports[agent].settle([settlement])

    async def succeed(self, jobs: Sequence[Job], agent: str = "a") -> None:
        """All of them in one batch, each with its own data as the result."""
        settlements = [self._settlement(job, RunOutcome.SUCCEEDED, None, job.data, None, None) for job in jobs]
        await self.transports[agent].settle(settlements)

    def _settlement(
        self,
        job: Job,
        outcome: RunOutcome,
        reason: FailReason | None,
        result: bytes | None,
        error: str | None,
        detail: bytes | None,
    ) -> Settlement:
        now_us = self.clock.wall_us()
        return Settlement(
            id=job.id,
            token=job.token,
            outcome=outcome,
            reason=reason,
            result=result,
            error=error,
            detail=detail,
            attempt=job.attempt,
            worker="worker-1",
            host="here",
            started_us=now_us,
            finished_us=now_us,
        )

    async def sync(self) -> None:
        """What the syncer does: the outboxes go to the master."""
        for name, transport in self.transports.items():
            if self.agents.shares_master(name):
                await self.master.move(name, transport.traits.shared_outbox, 1_000)
            records = await transport.changes(1_000)
            await self.master.apply(name, records)
            await transport.confirm([record.seq for record in records])


@asynccontextmanager
async def opened(agents: Sequence[str] = ("a",), workers: Sequence[WorkerSettings] = ()) -> AsyncIterator[Kit]:
    kit = Kit(agents, workers, folder.get())
    await kit.master.open()
    await kit.agents.open()
    try:
        yield kit
    finally:
        await kit.agents.close()
        await kit.master.close()
