"""Scheduler: what application code calls to enqueue jobs, and to look at, wait for and change those there are.

It owns nothing but caches and the watches of those who wait for results: master and agents are opened and closed by
whoever made it. Enqueueing a job that is due soon needs its agent only; what needs the master says so, and fails fast
while that is away.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from msgspec import UNSET

from jobmaster.agents_open import Agents
from jobmaster.bulk import Bulk
from jobmaster.client.asking import Asking
from jobmaster.client.batches import Batches
from jobmaster.client.counting import count
from jobmaster.client.definitions import Definitions
from jobmaster.client.drafting import Drafting, priority_named
from jobmaster.client.expectation import States, expectation
from jobmaster.client.identity import JobId, job_id_of
from jobmaster.client.interventions import Changes, Interventions
from jobmaster.client.listing import Listing, job_filter
from jobmaster.client.lookup import Lookup
from jobmaster.client.placing import Placing
from jobmaster.client.schedule_drafting import ScheduleDrafting
from jobmaster.client.schedules import ScheduleClient
from jobmaster.client.sending import Sending
from jobmaster.client.times import delay_us, to_us
from jobmaster.client.writing import Writing
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.decisions import policy_of
from jobmaster.contracts.entries import Placement
from jobmaster.contracts.master import MasterStore
from jobmaster.enqueuing import Enqueuing, Reference
from jobmaster.handle import JobHandle
from jobmaster.handler import JobHandler
from jobmaster.lanes import Lanes
from jobmaster.listeners import Listeners
from jobmaster.model.errors import JobConflict, OptionInvalid
from jobmaster.model.names import check_name
from jobmaster.model.priority import Priority
from jobmaster.open_clusters import scheduler_of
from jobmaster.operations import Operations
from jobmaster.recurring import Scheduling
from jobmaster.registry import Registry
from jobmaster.settings import ClusterSettings
from jobmaster.topology import Topology
from jobmaster.transaction import Transaction
from jobmaster.views import CancelResult, Counts, JobInfo, JobPage, job_info
from jobmaster.workers import Workers


def _nothing() -> None:
    """Stands for waking the duties of a process that runs none."""


def _nowhere(placements: Sequence[Placement]) -> None:
    """Stands for offering to them."""


class Scheduler(Enqueuing, Scheduling):
    """The client of one cluster, for one event loop.

    Whatever the first argument of an enqueue, its data are checked before anything is written; when the call returns,
    the job is stored durably. Raises `HandlerUnknown`, `DataInvalid`, `OptionInvalid`, `NameInvalid`, `KeyInvalid` for
    what is wrong with the call; `AgentUnreachable`, `MasterUnavailable` (or another `Refused`) if nothing was stored;
    `Indeterminate`, with id and agent, if that is not known; `JobConflict` if `id=` names another job.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        registry: Registry,
        master: MasterStore,
        agents: Agents,
        listeners: Listeners,
        clock: Clock,
        rng: Random,
        *,
        wake: Callable[[], None] = _nothing,
        offer: Callable[[Sequence[Placement]], None] = _nowhere,
    ) -> None:
        """`wake` is called when the master was given something for the duties of this process to look at, `offer` with
        hand-offs that they should complete."""
        threshold_us = round(settings.timings.transient_threshold * 1e6)
        self._master = master
        self._agents = agents
        self._wake = wake
        self._registry = registry
        self._listeners = listeners
        self._limit = settings.limits.data_bytes
        self._placing = Placing(master, agents, clock, rng, wake, offer)
        self._definitions = Definitions(registry, master, clock, settings.defaults.policy())
        drafting = Drafting(self._limit, agents.names, agents.by_lane)
        sending = Sending(self._placing, listeners, threshold_us)
        self._writing = Writing(self._definitions, drafting, self._placing.now_us, sending.write)
        schedule_drafting = ScheduleDrafting(drafting, self._limit, settings.timezone)
        self._schedules = ScheduleClient(
            master, agents, self._definitions, drafting, schedule_drafting, self._placing, rng
        )
        self._lookup = Lookup(master, agents)
        self._asking = Asking(self._lookup, agents)
        self._listing = Listing(master, agents)
        dead_after_us = round(settings.timings.worker_dead_after * 1e6)
        self.workers = Workers(master, agents, dead_after_us, clock.sleep)
        """Who runs jobs, and telling them what to do."""
        self.operations = Operations(master, agents, self.workers)
        """What those who run the cluster ask: workers, agents, dead letters."""
        self.topology = Topology(master, agents, threshold_us, dead_after_us)
        """What the cluster is made of, its history, and taking agents out and in."""
        self._interventions = Interventions(
            master, agents, self._lookup, self._placing, listeners, threshold_us=threshold_us, wake=wake
        )
        self.batches = Batches(master, agents, self._lookup, self._listing, self._interventions)
        """What operations are carried out with."""
        self.bulk = Bulk(master, self._listing, self._now_us, wake, clock.sleep, self._limit)
        """Changes of all jobs that meet some conditions."""
        lanes = frozenset(handler.lane for handler in registry)
        self.lanes = Lanes(master, agents, self.workers, self.bulk, lanes, clock.sleep)
        """What waits where; pausing, draining, purging and moving it."""

    @staticmethod
    def default() -> "Scheduler":
        """The scheduler of the default cluster among those that are open on the running event loop, which is the one
        whose builder said `default()`, or the only one; for handlers and helpers that no scheduler is handed to. Raises
        `JobMasterError` where none is open, or several and none of them is the default."""
        return scheduler_of(None)

    @staticmethod
    def of(cluster: str) -> "Scheduler":
        """The scheduler of the cluster of that name, open on the running event loop. Raises `JobMasterError`."""
        return scheduler_of(cluster)

    async def close(self) -> None:
        """End the watches. Those who still wait for a result are cancelled."""
        await self._asking.close()

    def in_transaction(self, connection: Any) -> Transaction:
        """What enqueues jobs as part of the transaction that is open on this connection and that its owner commits: an
        asyncpg connection, a SQLAlchemy `AsyncConnection` or `AsyncSession` on asyncpg, or a psycopg `AsyncConnection`,
        to the database of an agent on Postgres. See `Transaction`."""
        return Transaction(self, self._registry, self._writing, connection, self._agents, self._listeners)

    @property
    def _scheduler(self) -> "Scheduler":
        return self

    def _now_us(self) -> int:
        return self._placing.now_us()

    def handle(self, job_id: JobId) -> JobHandle:
        """The handle of a job whose id is known."""
        return JobHandle(job_id_of(job_id), self)

    async def result(self, job_id: JobId, timeout: float | None = None, *, near: str | None = None) -> Any:  # noqa: ASYNC109 - a timeout here is an answer
        """As `JobHandle.result`; `near` is the agent to ask first, where known."""
        return await self._asking.result(job_id_of(job_id), timeout, near)

    async def get(self, job_id: JobId) -> JobInfo:
        """The job as it stands, with its runs. Raises `JobNotFound`; `AgentUnreachable` or `MasterUnavailable` where
        only a store that did not answer could know it."""
        return await self._asking.get(job_id_of(job_id))

    async def list(
        self,
        *,
        state: States | None = None,
        handler: type[JobHandler[Any]] | Reference | None = None,
        lane: str | None = None,
        agent: str | None = None,
        schedule: str | None = None,
        tag: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        since: datetime | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Jobs that meet all conditions, newest first, without their runs; `since` is about their creation. A page may
        be short, even empty, while its `cursor` says that there is more. Raises `MasterUnavailable`."""
        name = handler if isinstance(handler, str) or handler is None else self._registry.resolve(handler).name
        where = job_filter(
            state=state,
            handler=name,
            lane=lane,
            agent=agent,
            schedule=schedule,
            tag=tag,
            metadata=metadata,
            since=since,
            limit_bytes=self._limit,
        )
        return await self._listing.page(where, cursor, limit)

    async def counts(self) -> Counts:
        """How many jobs there are per lane and state, and how long the oldest ready one has waited."""
        return await count(self._master, self._agents)

    async def cancel(
        self, job_id: JobId, *, expected_state: States | None = None, expected_version: int | None = None
    ) -> CancelResult:
        """End a job that has not ended. One that is running is fenced at once, so that it can't commit, and its handler
        is stopped. Raises as `get`.

        Here as in the other changes, with `expected_state` or `expected_version` the job is changed only if it is in
        that state, or at that version; otherwise `JobConflict` says what it is. The write itself compares it."""
        expected = expectation(expected_state, expected_version)
        return await self._interventions.cancel(job_id_of(job_id), expected)

    async def reschedule(
        self,
        job_id: JobId,
        when: datetime | timedelta,
        *,
        expected_state: States | None = None,
        expected_version: int | None = None,
    ) -> JobInfo:
        """Give a waiting job another due time: an instant, or a time from now. Raises as `update`."""
        return await self.update(job_id, when=when, expected_state=expected_state, expected_version=expected_version)

    async def update(
        self,
        job_id: JobId,
        *,
        when: datetime | timedelta | None = None,
        lane: str | None = None,
        priority: Priority | str | None = None,
        data: Any = UNSET,
        expected_state: States | None = None,
        expected_version: int | None = None,
    ) -> JobInfo:
        """Change a waiting job: its due time (an instant, or a time from now), lane, priority or data, checked as at an
        enqueue. It stays on its agent, also in its new lane. Raises `JobConflict` naming the state if it is running or
        has ended, else as `get` and as an enqueue."""
        wanted, expected = job_id_of(job_id), expectation(expected_state, expected_version)
        now_us = self._placing.now_us()
        due_us = None
        if when is not None:
            due_us = now_us + delay_us("when", when, now_us) if isinstance(when, timedelta) else to_us("when", when)
            due_us = max(due_us, now_us)
        raw = None
        if data is not UNSET:
            job = await self._lookup.find(wanted)
            recipe = await self._definitions.recipe(job.handler)
            if policy_of(job).data_version != recipe.policy.data_version:
                raise JobConflict(
                    wanted,
                    f"its data are of version {policy_of(job).data_version}, and known here is "
                    f"{recipe.policy.data_version}",
                    "change it with a process of that release, or cancel it and enqueue it anew",
                )
            raw = recipe.encode(data, limit=self._limit)
        changes = Changes(
            due_us=due_us,
            lane=None if lane is None else check_name("lane", lane),
            priority=None if priority is None else int(priority_named(priority)),
            data=raw,
        )
        if changes == Changes():
            raise OptionInvalid("update", None, "at least one of when, lane, priority, data")
        return job_info(await self._interventions.change(wanted, changes, expected))

    async def retry(
        self,
        job_id: JobId,
        *,
        fresh: bool = False,
        expected_state: States | None = None,
        expected_version: int | None = None,
    ) -> JobInfo:
        """Run a failed or cancelled job again, now. Its counters go on, so one that exhausted its attempts gets one
        more; `fresh` starts them anew. Raises `JobConflict` for a job in another state, else as `get`."""
        expected = expectation(expected_state, expected_version)
        return job_info(await self._interventions.retry(job_id_of(job_id), expected, fresh=fresh))

    async def delete(
        self, job_id: JobId, *, expected_state: States | None = None, expected_version: int | None = None
    ) -> None:
        """Remove an ended job and its runs from the history. Raises `JobConflict` for one that has not ended."""
        await self._interventions.delete(job_id_of(job_id), expectation(expected_state, expected_version))
