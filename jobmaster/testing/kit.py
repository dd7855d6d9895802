"""The kit for testing an application's handlers: its cluster in memory, with a clock that moves only when told to.

No worker and no duty runs by itself. `drain` runs what is due, in the test's own task, through the same decisions as a
worker; nothing ever waits for real time.
"""

import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import SecretStr

from jobmaster.builder import ClusterBuilder
from jobmaster.cluster import Cluster
from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.handler import JobHandler
from jobmaster.model import portable
from jobmaster.model.job import Job
from jobmaster.model.outcome import Outcome, RunOutcome, Succeeded
from jobmaster.model.policy import decode_policy
from jobmaster.runtime import Runtime
from jobmaster.scheduler import Scheduler
from jobmaster.testing.clock import ManualClock
from jobmaster.views import JobInfo, job_info
from jobmaster.worker.context import JobContext
from jobmaster.worker.decide import decide_error, decide_result, undecodable
from jobmaster.worker.lease import Lease
from jobmaster.worker.records import settlement_of

T = TypeVar("T")

BATCH = 100
QUIET_ROUNDS = 2
MOST_RUNS = 100_000
"""Runs of one `drain`; more means that jobs make jobs without end."""
LEASE_US = 3_600_000_000
WORKER = "testing-kit"


class TestCluster:
    """A cluster under test. Made by `cluster(...)`."""

    __test__ = False  # pytest: not a class of tests

    def __init__(self, runtime: Runtime, clock: ManualClock) -> None:
        self.clock = clock
        self._runtime = runtime
        self._rng = random.Random(0)  # noqa: S311 - jitter that is the same in every run
        self.worker_id = WORKER

    @property
    def scheduler(self) -> Scheduler:
        return self._runtime.scheduler

    async def drain(self) -> Counter[RunOutcome]:
        """Run every job that is due, those it enqueues included, until none is; how the runs ended. A failed attempt
        is recorded as in production and not raised: look at `enqueued(...)` or `scheduler.get(id)`. Jobs due later,
        retries among them, wait for `advance`."""
        ended: Counter[RunOutcome] = Counter()
        quiet_rounds = 0
        # One duty may leave work for another one that has had its pass, so a single quiet round proves nothing.
        while quiet_rounds < QUIET_ROUNDS:
            await self._runtime.pass_duties()
            ran = [await self._run_some(name) for name in self._runtime.agents]
            for outcomes in ran:
                ended.update(outcomes)
            quiet_rounds = 0 if any(ran) else quiet_rounds + 1
            if ended.total() > MOST_RUNS:
                raise AssertionError(
                    f"drain() ran {ended.total():,} jobs and more are due: do jobs enqueue themselves?"
                )
        return ended

    async def advance(self, time: timedelta) -> Counter[RunOutcome]:
        """Let that much time pass, then `drain`."""
        self.clock.advance(time.total_seconds())
        return await self.drain()

    def enqueued(self, handler: type[JobHandler[Any]] | Callable[..., Any] | str) -> list[JobInfo]:
        """Every job of that handler ever enqueued here, as it stands now, oldest first."""
        name = self._runtime.cluster.registry.resolve(handler).name
        where = JobFilter(handler=name)
        found: dict[str, Job] = {}
        for read in (self._runtime.master.page, *(self._runtime.agents[agent].peek for agent in self._runtime.agents)):
            cursor: str | None = None
            while True:
                page: Page = _at_once(read(where, cursor, BATCH))
                for job in page.jobs:
                    known = found.get(job.id)
                    if known is None or (job.epoch, job.version) > (known.epoch, known.version):
                        found[job.id] = job
                cursor = page.cursor
                if cursor is None:
                    break
        return [job_info(found[job_id]) for job_id in sorted(found)]

    def mono(self) -> float:
        return self.clock.mono()

    def progressed(self, lease: Lease) -> None:
        """Kept in the run's record."""

    async def _run_some(self, name: str) -> list[RunOutcome]:
        agent = self._runtime.agents[name]
        lanes = {lane.lane: BATCH for lane in await agent.stats() if lane.ready}
        if not lanes:
            return []
        known = self._runtime.cluster.registry.names
        claimed = await agent.claim(WORKER, lanes, known, BATCH, LEASE_US)
        return [await self._run(agent, job) for job in claimed]

    async def _run(self, agent: AgentTransport, job: Job) -> RunOutcome:
        lease = Lease(job, self, self.mono(), self.mono() + LEASE_US)
        outcome = await self._attempt(lease)
        settlement = settlement_of(lease, outcome, WORKER, WORKER, self.clock)
        await agent.settle([settlement])
        return settlement.outcome

    async def _attempt(self, lease: Lease) -> Outcome:
        job, limits = lease.job, self._runtime.cluster.settings.limits
        handler = self._runtime.cluster.registry.get(job.handler)
        assert handler is not None, job.handler
        lease.started_us = self.clock.wall_us()
        try:
            policy = decode_policy(job.policy)
            data = handler.read(job.data, policy.data_version)
        except Exception as error:
            return undecodable(error, limits.error_bytes)
        try:
            value = await handler.invoke(JobContext(lease, data, self))
        except Exception as error:
            return decide_error(error, job, policy, limits.error_bytes, self._rng)
        return lease.completed or decide_result(value, limits.result_bytes)

    async def complete_in(self, lease: Lease, connection: Any, result: Any) -> None:
        """The connection is taken as it is: there is no store here that could share its transaction."""
        raw = (
            None
            if result is None
            else portable.encode(result, limit=self._runtime.cluster.settings.limits.result_bytes, what="result")
        )
        lease.completed = Succeeded(raw)


@asynccontextmanager
async def cluster(config: ClusterBuilder | Cluster) -> AsyncIterator[TestCluster]:
    """The cluster of a configuration, with its master and all its agents in memory, empty, on a clock of its own."""
    built = config.build() if isinstance(config, ClusterBuilder) else config
    clock = ManualClock()
    runtime = await Runtime.rehearse(_in_memory(built), clock=clock, worker=WORKER)
    try:
        yield TestCluster(runtime, clock)
    finally:
        await runtime.stop(0)


def _in_memory(built: Cluster) -> Cluster:
    settings = built.settings
    memory = {"url": SecretStr(f"memory://{uuid.uuid4().hex}"), "options": {}}
    return built.with_settings(
        settings.model_copy(
            update={
                "master": settings.master.model_copy(update=memory),
                "agents": {name: agent.model_copy(update=memory) for name, agent in settings.agents.items()},
                "workers": (),
            }
        )
    )


def _at_once(asking: Coroutine[Any, Any, T]) -> T:
    """The answer of a store in memory, which never makes anybody wait."""
    try:
        # A store in memory may give way (None) to others, but never waits for a future.
        while asking.send(None) is None:
            continue
    except StopIteration as answer:
        found: T = answer.value
        return found
    asking.close()
    raise AssertionError("a store in memory waited for something")
