"""One cluster with two agents: where jobs go, and what becomes of that while one agent is away."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from jobmaster import AgentUnreachable, Cluster, ClusterBuilder, Indeterminate, JobState, Refused, Runtime
from jobmaster.contracts.entries import AgentState
from jobmaster.enqueue import Enqueue
from tests.servers.postgres import Postgres
from tests.support import eventually, recorded
from tests.system.fleet.processes import Fleet, fleet
from tests.system.fleet.shop import Mail, Pack, Work

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(120)]

JOBS = 300


def two(folder: Path) -> dict[str, str]:
    return {name: f"sqlite:///{folder / name}.db" for name in ("one", "two")}


@pytest.fixture(params=["sqlite", "postgres"])
def agents(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Two, in databases of their own or in one."""
    if request.param == "sqlite":
        return two(tmp_path)
    url = request.getfixturevalue("postgres_url")
    return {"one": url, "two": url}


@pytest.fixture
def shop(tmp_path: Path, agents: dict[str, str]) -> Iterator[Fleet]:
    with fleet(tmp_path, f"sqlite:///{tmp_path / 'master.db'}", agents) as made:
        yield made


async def where(runtime: Runtime, ids: list[str]) -> dict[str, set[str]]:
    """The jobs that each agent has."""
    found: dict[str, set[str]] = {}
    for name in runtime.agents:
        jobs = await runtime.agents[name].find(ids)
        found[name] = {job.id for job in jobs if job is not None}
    return found


async def test_jobs_go_to_the_agent_named_and_else_to_both_and_never_to_two(shop: Fleet) -> None:
    async with shop.cluster().run() as runtime:
        named = await runtime.scheduler.many(Enqueue(Pack, Work(), agent="two") for _ in range(20))
        assert (await where(runtime, list(named.ids)))["one"] == set()
        drawn = [(await runtime.scheduler.once_now(Pack, Work())).id for _ in range(JOBS)]
        found = await where(runtime, drawn)
        assert found["one"] | found["two"] == set(drawn)
        assert found["one"] & found["two"] == set()
        assert min(len(found["one"]), len(found["two"])) > 0
        await runtime.add_worker(agent="one", slots=10)
        await runtime.add_worker(agent="two", slots=10)
        for job_id in [*named.ids, *drawn]:
            await runtime.scheduler.result(job_id, timeout=30)


async def test_a_lane_goes_to_the_agent_whose_workers_serve_it(shop: Fleet) -> None:
    config = ClusterBuilder("fleet").ignore_environment().add_handlers(Pack, Mail).use_master(shop.master)
    for name, url in shop.agents.items():
        config.add_agent(name).use_agent(url)
    config.add_worker("packer").agent("one")
    config.add_worker("mailer").agent("two").lanes("mail")
    async with config.log(level="error").build().run() as runtime:
        mails = [await runtime.scheduler.once_now(Mail) for _ in range(10)]
        packs = [await runtime.scheduler.once_now(Pack, Work()) for _ in range(10)]
        assert {job.agent for job in mails} == {"two"}
        assert {job.agent for job in packs} == {"one"}
        for job in [*mails, *packs]:
            await job.result(timeout=20)


async def test_worker_processes_on_two_agents_share_the_load(shop: Fleet) -> None:
    one = await shop.worker("--agent", "one", "--slots", "5")
    two = await shop.worker("--agent", "two", "--slots", "5")
    async with shop.cluster().connect() as scheduler:
        jobs = [await scheduler.once_now(Pack, Work(seconds=0.005)) for _ in range(JOBS)]
        by = Counter([await job.result(timeout=60) for job in jobs])
        assert by.keys() == {one.pid, two.pid}
        assert min(by.values()) >= JOBS / 5
    begun = [job for job, _ in shop.notes("begins")]
    assert sorted(begun) == sorted(job.id for job in jobs)


def away(folder: Path, server: Postgres) -> Cluster:
    """Agent `two` is a server; master and agent `one` are files. A worker on each."""
    config = ClusterBuilder("fleet").ignore_environment().add_handlers(Pack, Mail).lease(ttl=3, beat=1, margin=0.5)
    config.use_master(f"sqlite:///{folder / 'master.db'}").log(level="error")
    config.add_agent("one").use_agent(f"sqlite:///{folder / 'one.db'}")
    config.add_agent("two").use_agent(server.url)
    config.add_worker("first").agent("one").lanes("default", "mail")
    config.add_worker("second").agent("two").lanes("default", "mail")
    return config.build()


@pytest.mark.parametrize("how", ["down", "hangs"])
async def test_a_process_starts_while_one_of_its_agents_is_away(
    tmp_path: Path, own_postgres: Callable[..., Postgres], how: str
) -> None:
    server = own_postgres()
    cluster = away(tmp_path, server)
    if how == "down":
        server.stop()
    else:
        server.freeze()
    began = time.monotonic()
    async with cluster.run() as runtime:
        started = time.monotonic() - began
        assert [worker.card.name for worker in runtime.workers] == ["first"]
        handles = [await runtime.scheduler.once_now(Pack, Work()) for _ in range(50)]
        assert {handle.agent for handle in handles} == {"one"}
        for handle in handles:
            await handle.result(timeout=20)
        with pytest.raises(AgentUnreachable, match="two"):
            await runtime.scheduler.once_now(Pack, Work(), agent="two")
        durable = await runtime.scheduler.once_now(Pack, Work(), agent="two", durability="master")

        if how == "down":
            await asyncio.to_thread(server.start)
        else:
            server.thaw()
        back = time.monotonic()
        await eventually(lambda: len(runtime.workers) == 2, within=20, what="the second worker has come")
        print(
            f"{how}: started after {started:.2f} s, the agent was opened {time.monotonic() - back:.2f} s after it came"
        )
        assert await durable.result(timeout=30)
        direct = await runtime.scheduler.once_now(Pack, Work(), agent="two")
        assert await direct.result(timeout=20)
        known = {entry.name for entry in await runtime.master.agents()}
        assert known == {"one", "two"}


async def test_jobs_go_elsewhere_when_an_agent_goes_away_under_a_running_process(
    tmp_path: Path, own_postgres: Callable[..., Postgres]
) -> None:
    server = own_postgres()
    async with away(tmp_path, server).run() as runtime:
        await runtime.scheduler.many(Enqueue(Pack, Work()) for _ in range(100))
        server.stop()

        pinned: list[str | None] = []

        async def to_one_only() -> bool:
            try:
                handles = [await runtime.scheduler.once_now(Pack, Work()) for _ in range(20)]
            except Indeterminate as error:
                # Under way when the server stopped: pinned there, as the error says, and never tried elsewhere.
                pinned.append(error.agent)
                return False
            return {handle.agent for handle in handles} == {"one"}

        await eventually(to_one_only, within=15)
        assert set(pinned) <= {"two"}
        await asyncio.to_thread(server.start)

        async def to_both() -> bool:
            handles = [await runtime.scheduler.once_now(Pack, Work()) for _ in range(20)]
            for handle in handles:
                await handle.result(timeout=30)
            return {handle.agent for handle in handles} == {"one", "two"}

        await eventually(to_both, within=30)


async def test_a_process_none_of_whose_stores_answers_does_not_start(
    tmp_path: Path, own_postgres: Callable[..., Postgres]
) -> None:
    server = own_postgres()
    server.stop()
    config = ClusterBuilder("fleet").ignore_environment().add_handlers(Pack).use_master(server.url).log(level="error")
    config.add_agent("two").use_agent(server.url)
    with pytest.raises(AgentUnreachable):
        await config.build().start()


@pytest.mark.parametrize("which", ["master", "agent"])
async def test_a_store_that_is_misconfigured_ends_the_start_though_the_others_answer(
    tmp_path: Path, postgres_url: str, which: str
) -> None:
    file, wrong = f"sqlite:///{tmp_path / 'file.db'}", f"{postgres_url}_that_nobody_made"
    config = ClusterBuilder("fleet").ignore_environment().add_handlers(Pack).log(level="error")
    config.use_master(wrong if which == "master" else file)
    config.add_agent("one").use_agent(file)
    config.add_agent("two").use_agent(wrong if which == "agent" else file)
    with pytest.raises(Refused, match="does not exist"):
        await config.build().start()


async def test_jobs_of_an_agent_that_stays_away_run_elsewhere_where_that_is_wished(
    tmp_path: Path, own_postgres: Callable[..., Postgres]
) -> None:
    server = own_postgres()
    config = ClusterBuilder("fleet").ignore_environment().add_handlers(Pack).lease(ttl=2, beat=0.5, margin=0.5)
    config.use_master(f"sqlite:///{tmp_path / 'master.db'}").log(level="error")
    config.add_agent("one").use_agent(f"sqlite:///{tmp_path / 'one.db'}")
    config.add_agent("two").use_agent(server.url).redispatch_after(4)
    config.add_worker("first").agent("one").lanes("later")
    config.add_worker("second").agent("two").lanes("default")
    async with config.build().run() as runtime:
        scheduler = runtime.scheduler
        jobs = await scheduler.many(Enqueue(Pack, Work(), lane="later", agent="two") for _ in range(20))

        async def standing() -> str:
            return (await scheduler.topology.agent("two")).state

        async def known() -> bool:
            return len(await runtime.master.on_agent("two", "", 100)) == len(jobs.ids)

        await eventually(known, within=20, what="the master has heard of the jobs")
        server.stop()
        await eventually(lambda: _is(standing(), AgentState.AWAY), within=30, what="the agent is given up")
        for job_id in jobs.ids:
            await scheduler.result(job_id, timeout=30)
        await asyncio.to_thread(server.start)
        await eventually(lambda: _is(standing(), AgentState.OPEN), within=30, what="the agent takes part again")
        # A worker for that lane there would run what is left of the copies.
        await runtime.add_worker("third", agent="two", lanes=["later"])
        fresh = await eventually(lambda: _placed(runtime), within=30, what="it takes jobs again")
        await scheduler.result(fresh, timeout=30)
        for job_id in jobs.ids:
            info = await recorded(scheduler, job_id)
            assert (info.agent, len(info.runs), info.state) == ("one", 1, JobState.SUCCEEDED)
        assert [job for job in await runtime.agents["two"].find(list(jobs.ids)) if job is not None] == []


async def _is(answer: Awaitable[object], expected: object) -> bool:
    return await answer == expected


async def _placed(runtime: Runtime) -> str:
    try:
        return (await runtime.scheduler.once_now(Pack, Work(), lane="later", agent="two")).id
    except Refused:  # not reconciled yet
        return ""
