"""A cluster as its users run it, whole: memory first, then one SQLite file."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from jobmaster import Cluster, ClusterBuilder, JobContext, JobHandler, Retry
from jobmaster.model.errors import ConfigurationError, JobFailed, JobMasterError, NameInvalid, OptionInvalid
from jobmaster.model.states import JobState
from tests.support import eventually


@dataclass
class Welcome:
    user_id: str


class SendWelcome(JobHandler[Welcome]):
    async def execute(self, job: JobContext[Welcome]) -> str:
        return f"welcome, {job.data.user_id}"


class Fail(JobHandler):
    retry = Retry.fixed(timedelta(milliseconds=1), max_attempts=2)

    async def execute(self, job: JobContext) -> None:
        raise ValueError("never works")


class Gate:
    """Lets a test hold a handler inside its run."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()


_gate = Gate()


class WaitAtGate(JobHandler):
    async def execute(self, job: JobContext) -> str:
        _gate.entered.set()
        await _gate.open.wait()
        return "through"


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    global _gate
    _gate = Gate()


@pytest.fixture(params=["memory", "sqlite", "sqlite-split"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Cluster:
    config = ClusterBuilder("production").add_handlers(SendWelcome, Fail, WaitAtGate)
    match request.param:
        case "memory":
            config.use_memory_for_master()
            config.add_agent("transport-1").use_memory_for_agent()
        case "sqlite":
            config.use_sqlite_for_master(tmp_path / "jobs.db")
            config.add_agent("transport-1").use_sqlite_for_agent(tmp_path / "jobs.db")
        case _:
            config.use_sqlite_for_master(tmp_path / "master.db")
            config.add_agent("transport-1").use_sqlite_for_agent(tmp_path / "agent.db")
    config.add_worker().agent("transport-1").slots(5)
    return config.build()


@pytest.mark.asyncio
async def test_the_readme_example(cluster: Cluster) -> None:
    async with cluster.run() as runtime:
        job = await runtime.scheduler.once_now(SendWelcome, Welcome("user_123"))
        later = await runtime.scheduler.once_after(SendWelcome, timedelta(minutes=5), Welcome("user_123"))
        await runtime.scheduler.recurring(SendWelcome, timedelta(hours=24), Welcome("user_123"), key="welcome:user_123")
        extra = await runtime.add_worker(agent="transport-1", slots=20)
        assert await job.result(timeout=30) == "welcome, user_123"
        await extra.stop()
        assert len(runtime.workers) == 1
        info = await runtime.scheduler.get(later.id)
        assert info.state is JobState.QUEUED


@pytest.mark.asyncio
async def test_a_job_beyond_the_threshold_is_held_and_one_delayed_a_little_runs_on_time(cluster: Cluster) -> None:
    async with cluster.run() as runtime:
        far = await runtime.scheduler.once_after(SendWelcome, timedelta(hours=1), Welcome("far"))
        assert (await runtime.scheduler.get(far.id)).state is JobState.HELD
        soon = await runtime.scheduler.once_after(SendWelcome, timedelta(milliseconds=50), Welcome("soon"))
        assert await soon.result(timeout=30) == "welcome, soon"


@pytest.mark.asyncio
async def test_a_recurring_schedule_ticks(cluster: Cluster) -> None:
    async with cluster.run() as runtime:
        await runtime.scheduler.recurring(SendWelcome, timedelta(seconds=1), Welcome("tick"), key="tick")

        async def succeeded() -> bool:
            page = await runtime.scheduler.list(handler=SendWelcome, state=JobState.SUCCEEDED)
            return len(page.jobs) >= 2

        await eventually(succeeded, within=30)
        ticks = await runtime.scheduler.occurrences("tick")
        assert len({tick.at for tick in ticks}) == len(ticks) >= 2


@pytest.mark.asyncio
async def test_retries_end_in_a_failure_with_its_story(cluster: Cluster) -> None:
    async with cluster.run() as runtime:
        job = await runtime.scheduler.once_now(Fail)
        with pytest.raises(JobFailed, match="never works"):
            await job.result(timeout=30)

        async def attempts() -> list[int]:
            return [run.attempt for run in (await runtime.scheduler.get(job.id)).runs]

        await eventually(lambda: _is(attempts(), [1, 2]), within=30, what="both runs in the history")


async def _is(answer: Awaitable[object], expected: object) -> bool:
    return await answer == expected


@pytest.mark.asyncio
async def test_stop_lets_running_jobs_finish_and_leaves_the_history_complete(cluster: Cluster) -> None:
    runtime = await cluster.start()
    job = await runtime.scheduler.once_now(WaitAtGate)
    await _gate.entered.wait()
    stopping = asyncio.create_task(runtime.stop())
    await asyncio.sleep(0)
    _gate.open.set()
    await stopping
    await runtime.stop()
    master = runtime.master
    await master.open()
    (known,) = await master.get([job.id])
    await master.close()
    if "memory" not in cluster.settings.master.shown_url:
        assert known is not None
        assert known.state is JobState.SUCCEEDED


@pytest.mark.asyncio
async def test_a_second_stop_interrupts_what_runs_and_burns_no_attempt(cluster: Cluster) -> None:
    runtime = await cluster.start()
    job = await runtime.scheduler.once_now(WaitAtGate)
    await _gate.entered.wait()
    first = asyncio.create_task(runtime.stop())
    await asyncio.sleep(0)
    await runtime.stop()
    await first
    if not runtime.agents["transport-1"].traits.restartable:
        return
    async with cluster.connect() as scheduler:
        info = await scheduler.get(job.id)
        assert info.state is JobState.QUEUED
        assert info.attempts == 0


@pytest.mark.asyncio
async def test_connecting_runs_nothing_and_another_runtime_does(cluster: Cluster) -> None:
    if cluster.settings.agents["transport-1"].scheme != "sqlite":
        pytest.skip("memory is not shared between two runtimes")
    async with cluster.connect() as scheduler:
        job = await scheduler.once_now("send-welcome", {"user_id": "elsewhere"})
        assert (await scheduler.get(job.id)).state is JobState.QUEUED
        async with cluster.run():
            assert await job.result(timeout=30) == "welcome, elsewhere"


@pytest.mark.asyncio
async def test_a_worker_for_an_agent_that_does_not_exist_is_refused_by_name(cluster: Cluster) -> None:
    async with cluster.run() as runtime:
        with pytest.raises(NameInvalid, match="transport-1"):
            await runtime.add_worker(agent="transport-2")
    with pytest.raises(JobMasterError, match="stopped"):
        await runtime.add_worker()


@pytest.mark.asyncio
async def test_with_several_agents_a_worker_must_say_which() -> None:
    config = ClusterBuilder("c").add_handlers(SendWelcome).use_memory_for_master()
    config.add_agent("a").use_memory_for_agent()
    config.add_agent("b").use_memory_for_agent()
    config.add_worker().agent("a")
    async with config.build().run() as runtime:
        with pytest.raises(OptionInvalid, match="several"):
            await runtime.add_worker()
        assert (await runtime.add_worker(agent="b")).card.lanes == ("default",)


@pytest.mark.asyncio
async def test_an_agent_name_can_not_be_pointed_at_another_store(tmp_path: Path) -> None:
    def build(file: str) -> Cluster:
        config = ClusterBuilder("c").add_handlers(SendWelcome).use_sqlite_for_master(tmp_path / "master.db")
        config.add_agent("a").use_sqlite_for_agent(tmp_path / file)
        config.add_worker().agent("a")
        return config.build()

    async with build("one.db").run():
        pass
    with pytest.raises(ConfigurationError, match="'a' is known as another store"):
        await build("two.db").start()
    async with build("one.db").run():
        pass


@pytest.mark.asyncio
async def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    config = ClusterBuilder("c").add_handlers(SendWelcome).use_sqlite_for_master(tmp_path / "master.db")
    config.add_agent("good").use_sqlite_for_agent(tmp_path / "good.db")
    config.add_agent("bad").use_sqlite_for_agent(tmp_path / "folder")
    config.add_worker().agent("good")
    before = set(asyncio.all_tasks())
    with pytest.raises(JobMasterError, match="folder"):
        await config.build().start()
    assert set(asyncio.all_tasks()) == before
