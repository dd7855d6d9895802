"""Handles on the memory transport: which share jobs, for how long, and from which threads."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobmaster.contracts.values import SettleAnswer
from jobmaster.model.errors import ConfigurationError, Refused
from jobmaster.testing.agents.cases import HANDLERS, LONG_US, put_new, settlement
from jobmaster_agents.memory import MemoryAgent


async def opened(url: str = "memory://sharing", cluster: str = "c", name: str = "a") -> MemoryAgent:
    agent = MemoryAgent(url, cluster=cluster, name=name)
    await agent.open()
    return agent


async def _drain(number: int) -> list[str]:
    agent = await opened("memory://threads")
    done: list[str] = []
    while jobs := await agent.claim(f"w{number}", {"default": 7}, HANDLERS, 7, LONG_US):
        assert set(await agent.settle([settlement(job) for job in jobs])) == {SettleAnswer.ACCEPTED}
        done += [job.id for job in jobs]
    await agent.close()
    return done


@pytest.mark.asyncio
async def test_threads_with_loops_of_their_own_share_one_store() -> None:
    agent = await opened("memory://threads")
    jobs = await put_new(agent, 1_000)
    with ThreadPoolExecutor(4) as pool:
        loop = asyncio.get_running_loop()
        done = await asyncio.gather(*(loop.run_in_executor(pool, asyncio.run, _drain(number)) for number in range(4)))

    assert sorted(itertools.chain(*done)) == sorted(job.id for job in jobs)
    assert len(await agent.changes(10_000)) == 1_000
    await agent.close()


@pytest.mark.asyncio
async def test_place_cluster_and_name_tell_stores_apart() -> None:
    first = await opened()
    await put_new(first)
    same = await opened()
    others = [await opened("memory:"), await opened(cluster="c2"), await opened(name="a2")]

    assert len(await same.inventory("", 10)) == 1
    for other in others:
        assert await other.inventory("", 10) == []


@pytest.mark.asyncio
async def test_a_store_ends_with_its_last_handle() -> None:
    first, second = await opened(), await opened()
    await put_new(first)
    await first.close()
    assert len(await second.inventory("", 10)) == 1
    await second.close()

    assert await (await opened()).inventory("", 10) == []


@pytest.mark.asyncio
async def test_a_handle_that_is_not_open_refuses() -> None:
    agent = MemoryAgent(cluster="c", name="a")

    with pytest.raises(Refused, match=r"'a' is not open"):
        await agent.stats()


@pytest.mark.parametrize("url", ["memory:/file", "memory://a/b", "memory://a?x=1", "sqlite:///x", "memory", ""])
def test_a_url_that_means_nothing_here_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="memory://place"):
        MemoryAgent(url, cluster="c", name="a")


def test_an_option_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="pool_size"):
        MemoryAgent(cluster="c", name="a", options={"pool_size": 3})
