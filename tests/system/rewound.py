"""What the tests of stores that were wiped or set back share: a cluster, jobs that have ended and jobs that wait, and
what must have come of them in the end."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from jobmaster import Cluster, ClusterBuilder, JobContext, JobEvent, JobHandler
from jobmaster.contracts.values import Control, ControlKind, StoreMode
from jobmaster.model.states import JobState
from jobmaster.runtime import Runtime
from tests.support import eventually

CLUSTER = "rewound"
AGENT = "transport-1"

runs: Counter[str] = Counter()
"""How often each job ran, by the name in its data."""
reasons: list[str] = []
"""What the listener heard."""

RECONCILING = ("rebase.after_commit", "reconcile.before_naming", "reconcile.named", "adopt.before_commit")
"""The failpoints that only a store that was wiped or set back comes by."""


class Note(JobHandler):
    async def execute(self, job: JobContext) -> None:
        runs[job.data["name"]] += 1


def _note_reason(event: JobEvent) -> None:
    reasons.append(f"{event.agent}: {event.reason}")


def begin(master_url: str, agent_url: str, **options: Any) -> Cluster:
    """A cluster of one agent with a database of its own, and nothing noted yet."""
    runs.clear()
    reasons.clear()
    config = ClusterBuilder(CLUSTER).add_handlers(Note).on_quarantined(_note_reason).use_master(master_url)
    config.add_agent(AGENT).use_agent(agent_url, **options)
    config.add_worker().agent(AGENT).slots(5)
    return config.build()


async def pause(runtime: Runtime, kind: ControlKind = ControlKind.PAUSE) -> None:
    await runtime.agents[AGENT].control(Control(kind))


async def put(runtime: Runtime, *names: str, **options: Any) -> list[str]:
    return [(await runtime.scheduler.once_now(Note, {"name": name}, **options)).id for name in names]


async def known(runtime: Runtime, ids: list[str], *states: JobState) -> bool:
    """Whether the master knows all of these, in one of the states."""
    found = await runtime.master.get(ids)
    return all(job is not None and job.state in states for job in found)


class Prepared:
    """A running cluster: three jobs that have ended, unknown to a copy of the store made before, and three that wait,
    which it does not have."""

    def __init__(self, runtime: Runtime, ended: list[str], waiting: list[str], incarnation: str) -> None:
        self.runtime = runtime
        self.ended = ended
        self.waiting = waiting
        self.incarnation = incarnation


@contextlib.asynccontextmanager
async def prepared(cluster: Cluster, copy: Callable[[], Awaitable[object]]) -> AsyncIterator[Prepared]:
    async with cluster.run() as runtime:
        await pause(runtime)
        ended = await put(runtime, "a", "b", "c")
        await copy()
        await pause(runtime, ControlKind.RESUME)
        await eventually(lambda: known(runtime, ended, JobState.SUCCEEDED), what="history of the first three")
        await pause(runtime)
        waiting = [*await put(runtime, "d", durability="master"), *await put(runtime, "e", "f")]
        await eventually(lambda: known(runtime, waiting, JobState.QUEUED), what="copies on the master")
        await eventually(lambda: mark_told(runtime), what="the store's mark is known, as it is every two seconds")
        yield Prepared(runtime, ended, waiting, (await runtime.agents[AGENT].probe()).incarnation)


async def mark_told(runtime: Runtime) -> bool:
    """Whether the master knows how far the store has come: what is set back to a time before that is noticed."""
    mark = (await runtime.agents[AGENT].probe()).high_water
    return [entry.high_water >= mark for entry in await runtime.master.agents()] == [True]


async def sorted_out(runtime: Runtime, before: Prepared) -> None:
    """What had ended was not run again, what the master knew to wait was, once, and work goes on in a new store."""
    await eventually(lambda: known(runtime, before.waiting, JobState.SUCCEEDED), within=30, what="those waiting ran")
    assert await known(runtime, before.ended, JobState.SUCCEEDED)
    assert dict(runs) == dict.fromkeys("abcdef", 1)
    assert [reason.split(":")[0] for reason in reasons] == [AGENT]
    [entry] = await runtime.master.agents()
    report = await runtime.agents[AGENT].probe()
    assert (entry.quarantined, entry.incarnation) == (None, report.incarnation)
    assert report.incarnation != before.incarnation
    assert report.mode is StoreMode.OPEN
    [new] = await put(runtime, "g")
    await eventually(lambda: known(runtime, [new], JobState.SUCCEEDED), what="work goes on")
