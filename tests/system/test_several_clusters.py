"""Several clusters on one event loop, one of them the default."""

import asyncio

import pytest

from jobmaster import Cluster, ClusterBuilder, ConfigurationError, JobContext, JobHandler, JobMasterError, Scheduler


class Whose(JobHandler):
    """Tells which of the open clusters is the default where it runs."""

    async def execute(self, job: JobContext) -> bool:
        return Scheduler.default() is Scheduler.of("one")


def cluster(name: str, *, default: bool = False) -> Cluster:
    config = ClusterBuilder(name).ignore_environment().add_handlers(Whose).log(level="error").use_memory_for_master()
    config.add_agent("transport-1").use_memory_for_agent()
    config.add_worker()
    return (config.default() if default else config).build()


@pytest.mark.asyncio
async def test_the_only_one_is_the_default_and_two_need_one_that_claims_it() -> None:
    with pytest.raises(JobMasterError, match="no cluster is open on this event loop"):
        Scheduler.default()
    async with cluster("one").connect() as one:
        assert Scheduler.default() is one
        async with cluster("two").connect() as two:
            with pytest.raises(JobMasterError, match=r"none is the default: 'one', 'two'; call \.default\(\)"):
                Scheduler.default()
            assert (Scheduler.of("one"), Scheduler.of("two")) == (one, two)
            with pytest.raises(JobMasterError, match="expected one that is open here: 'one', 'two'"):
                Scheduler.of("three")
        assert Scheduler.default() is one
    with pytest.raises(JobMasterError, match="no cluster is open"):
        Scheduler.of("one")


@pytest.mark.asyncio
async def test_the_one_that_claims_it_is_meant_in_handlers_too_and_a_second_claim_is_refused() -> None:
    claimed = cluster("one", default=True).without_workers()
    assert claimed.is_default
    async with cluster("two").run() as other, claimed.connect() as one:
        assert Scheduler.default() is one
        job = await other.scheduler.once_now(Whose)
        assert await job.result(timeout=30) is True
        with pytest.raises(ConfigurationError, match="'one' and 'three' both claim to be the default"):
            await cluster("three", default=True).start()
        # One that is open twice is one cluster; its first scheduler is meant.
        async with claimed.connect():
            assert Scheduler.default() is one


@pytest.mark.asyncio
async def test_another_thread_finds_nothing_of_this_one() -> None:
    async def ask() -> Scheduler:
        return Scheduler.default()

    async with cluster("one").connect():
        for call in (Scheduler.default, lambda: asyncio.run(ask())):
            with pytest.raises(JobMasterError, match="no cluster is open"):
                await asyncio.to_thread(call)
