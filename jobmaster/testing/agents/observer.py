"""What the state machine stands on: one store, its model, and the comparison of the two after every step."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import OutboxRecord
from jobmaster.model.job import Job
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import about
from jobmaster.testing.agents.harness import AgentStore
from jobmaster.testing.agents.model import Model, Span, Stand

T = TypeVar("T")

EVERYTHING = 100_000


class Observer(RuleBasedStateMachine):
    """The store must be what the model says, at any time."""

    def new_store(self) -> AgentStore:
        """A fresh store."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = self.new_store()
        self.agent: AgentTransport = self.run(self.store.open())
        self.model = Model()
        self.ids: list[str] = []
        self.confirmed: list[OutboxRecord] = []
        self.seen: dict[str, Job] = {}

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(call)

    def timed(self, call: Coroutine[Any, Any, T]) -> tuple[T, Span]:
        """An answer, and when in store time it was found."""
        before = self.run(self.agent.store_now_us())
        answer = self.run(call)
        return answer, (before, self.run(self.agent.store_now_us()))

    def any_id(self, pick: int) -> str:
        return self.ids[pick % len(self.ids)]

    def any_lease(self, pick: int) -> tuple[str, int]:
        # Drawn evenly, the two that matter most would hardly ever come: a lease that is held, and an earlier one of
        # a job that is leased again.
        held = {job.put.id: job.token for job in self.model.leased()}
        current = [lease for lease in self.model.granted if held.get(lease[0]) == lease[1]]
        zombies = [lease for lease in self.model.granted if held.get(lease[0], lease[1]) != lease[1]]
        granted = (self.model.granted, current, zombies)[pick % 3] or self.model.granted
        return granted[pick // 3 % len(granted)]

    @invariant()
    def every_job_is_here_once(self) -> None:
        listed = self.run(self.agent.inventory("", EVERYTHING))
        assert [item.id for item in listed] == sorted(self.model.here)
        jobs = self.run(self.agent.find([item.id for item in listed]))
        for item, job in zip(listed, jobs, strict=True):
            assert job is not None
            expected = self.model.here[item.id]
            assert (item.epoch, item.version) == (job.epoch, job.version)
            assert job.epoch == expected.put.epoch
            running = expected.stand is Stand.LEASED
            assert job.state is (JobState.RUNNING if running else JobState.QUEUED)
            assert not running or job.token == expected.token
            assert (job.attempts, job.priority) == (expected.attempts, expected.priority)
            self._versions_rise(job)

    def _versions_rise(self, job: Job) -> None:
        before = self.seen.get(job.id)
        if before is not None and job != before:
            assert (job.epoch, job.version) > (before.epoch, before.version)
        self.seen[job.id] = job

    @invariant()
    def the_outbox_holds_every_run_and_end_once(self) -> None:
        records = [*self.confirmed, *self.run(self.agent.changes(EVERYTHING))]
        seqs = [record.seq for record in records]
        assert sorted(seqs) == sorted(set(seqs))
        runs = [(record.run.job_id, record.run.token) for record in records if record.run]
        assert sorted(runs) == sorted(self.model.runs)
        ended = [
            (record.job.id, record.job.epoch, str(record.job.state))
            for record in records
            if record.job and record.job.state is not JobState.QUEUED
        ]
        assert sorted(ended) == sorted(end for end in self.model.ends if end[2] != "superseded")
        stamps: dict[str, tuple[int, int]] = {}
        for record in sorted(records, key=lambda record: record.seq):
            if record.job is not None:
                stamp = (record.job.epoch, record.job.version)
                assert stamp > stamps.get(about(record), (0, 0))
                stamps[about(record)] = stamp
