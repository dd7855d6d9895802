"""What all cases of the contract stand on: the fixtures, and short ways to make and move jobs."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import (
    PUT_WINDOW_US,
    OutboxRecord,
    PutAnswer,
    Release,
    SettleAnswer,
    Settlement,
    WorkerCard,
)
from jobmaster.model.ids import new_id
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.testing.agents.harness import AgentStore

HANDLER = "send-welcome"
HANDLERS = frozenset({HANDLER})
LANE = "default"
LONG_US = 600_000_000
"""A lease that outlives any case."""
SHORT_US = 50_000
SHORT = SHORT_US / 1e6
"""A lease that is meant to run out, in µs and seconds."""
HOUR_US = 3_600_000_000


class AgentCases:
    """Base of the suite's classes. A transport's test class supplies the fixture `store`."""

    pytestmark = pytest.mark.asyncio

    @pytest_asyncio.fixture
    async def agent(self, store: AgentStore) -> AsyncIterator[AgentTransport]:
        yield await store.open()


async def new_job(agent: AgentTransport, **fields: Any) -> Job:
    """A job as the scheduler makes it, due now in store time unless `due_us` says otherwise."""
    now_us = await agent.store_now_us()
    return make_job(now_us, **fields)


def make_job(now_us: int, **fields: Any) -> Job:
    values: dict[str, Any] = {
        "id": new_id(),
        "handler": HANDLER,
        "lane": LANE,
        "created_us": now_us,
        "original_due_us": fields.get("due_us", now_us),
        "due_us": now_us,
        "data": b'{"user_id":"u1"}',
    }
    return Job(**{**values, **fields})


async def put(agent: AgentTransport, *jobs: Job) -> list[PutAnswer]:
    """With a put deadline that is far enough."""
    return await agent.put(jobs, await agent.store_now_us() + PUT_WINDOW_US)


async def put_new(agent: AgentTransport, count: int = 1, **fields: Any) -> list[Job]:
    """That many new jobs, stored."""
    now_us = await agent.store_now_us()
    jobs = [make_job(now_us, **fields) for _ in range(count)]
    assert await put(agent, *jobs) == [PutAnswer.STORED] * count
    return jobs


async def claim(
    agent: AgentTransport, limit: int = 10, *, worker: str = "w1", lane: str = LANE, ttl_us: int = LONG_US
) -> list[Job]:
    return await agent.claim(worker, {lane: limit}, HANDLERS, limit, ttl_us)


async def claim_one(agent: AgentTransport, *, worker: str = "w1", ttl_us: int = LONG_US) -> Job:
    """Exactly one job, which must be there."""
    [job] = await claim(agent, 1, worker=worker, ttl_us=ttl_us)
    return job


async def claimed_new(agent: AgentTransport, *, worker: str = "w1", ttl_us: int = LONG_US, **fields: Any) -> Job:
    """A new job, stored and leased."""
    await put_new(agent, **fields)
    return await claim_one(agent, worker=worker, ttl_us=ttl_us)


def settlement(job: Job, outcome: RunOutcome = RunOutcome.SUCCEEDED, **fields: Any) -> Settlement:
    """What a worker makes of a claimed job."""
    values: dict[str, Any] = {
        "attempt": job.attempt,
        "worker": job.worker or "w1",
        "host": "host-1",
        "started_us": job.due_us,
        "finished_us": job.due_us + 1_000,
    }
    return Settlement(id=job.id, token=job.token, outcome=outcome, **{**values, **fields})


async def settle(
    agent: AgentTransport, job: Job, outcome: RunOutcome = RunOutcome.SUCCEEDED, **fields: Any
) -> SettleAnswer:
    [answer] = await agent.settle([settlement(job, outcome, **fields)])
    return answer


async def release(agent: AgentTransport, job: Job, *, started: bool = False) -> SettleAnswer:
    item = Release(job.id, job.token, started, worker="w1", host="host-1", started_us=job.due_us if started else None)
    [answer] = await agent.release([item])
    return answer


async def found(agent: AgentTransport, job_id: str) -> Job | None:
    [job] = await agent.find([job_id])
    return job


async def here(agent: AgentTransport, job_id: str) -> Job:
    """The job as it stands, which must be known."""
    job = await found(agent, job_id)
    assert job is not None
    return job


async def records(agent: AgentTransport, job_id: str | None = None) -> list[OutboxRecord]:
    """Everything in the outbox, or what concerns one job."""
    everything = await agent.changes(100_000)
    return [record for record in everything if job_id in (None, about(record))]


def about(record: OutboxRecord) -> str:
    """The id a record is about."""
    if record.job is not None:
        return record.job.id
    assert record.revoked is not None
    return record.revoked.id


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


def card(worker: str, **fields: Any) -> WorkerCard:
    values: dict[str, Any] = {
        "name": "worker",
        "host": "host-1",
        "pid": 1,
        "lanes": (LANE,),
        "handlers": (HANDLER,),
        "slots": 10,
        "started_us": 1,
    }
    return WorkerCard(id=worker, **{**values, **fields})


def without(job: Job, *names: str) -> dict[str, Any]:
    """A job's fields but for those, to compare the rest."""
    return {name: value for name, value in msgspec.structs.asdict(job).items() if name not in names}
