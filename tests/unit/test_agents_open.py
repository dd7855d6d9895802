"""The agents of a process, some of which are away."""

import asyncio
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from jobmaster import agent_link, agents_open
from jobmaster.agents_open import Agents
from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.values import LaneStats, ProbeReport
from jobmaster.model.errors import AgentUnreachable, UnsafeStore
from jobmaster.model.ids import new_id
from jobmaster.placement import choose_agent
from jobmaster_agents.memory import MemoryAgent
from tests.support import eventually

pytestmark = pytest.mark.asyncio


class Server(MemoryAgent):
    """An agent in memory that can be away, or hang, as one on a server."""

    def __init__(self, name: str) -> None:
        super().__init__(cluster=new_id(), name=name, clock=SystemClock())
        self.fault: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.asked = 0

    async def open(self) -> ProbeReport:
        await self.goes_on.wait()
        if self.fault is not None:
            raise self.fault
        return await super().open()

    async def stats(self) -> list[LaneStats]:
        self.asked += 1
        await self.goes_on.wait()
        if self.fault is not None:
            raise self.fault
        return await super().stats()


@pytest_asyncio.fixture
async def servers() -> dict[str, Any]:
    return {name: Server(name) for name in ("one", "two")}


@pytest_asyncio.fixture
async def agents(servers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agents]:
    monkeypatch.setattr(agent_link, "OPENING_SECONDS", 0.05)
    monkeypatch.setattr(agents_open, "READING_SECONDS", 0.05)
    monkeypatch.setattr(agents_open, "BACKLOG_SECONDS", 0.0)
    opened = Agents(servers, SystemClock(), rng=Random(1))
    yield opened
    for server in servers.values():
        server.goes_on.set()
    await opened.close()


@pytest.mark.parametrize("how", ["down", "hangs"])
async def test_one_that_is_away_at_the_start_is_opened_in_the_background(
    agents: Agents, servers: dict[str, Any], how: str
) -> None:
    arrived: list[str] = []
    agents.arrived = arrived.append
    if how == "down":
        servers["two"].fault = AgentUnreachable("two", "connection refused")
    else:
        servers["two"].goes_on.clear()
    away = await agents.open()
    assert list(away) == ["two"]
    assert (agents.problem("one"), "two" in agents.reports) == (None, False)
    with pytest.raises(AgentUnreachable, match="'two'"):
        await agents["two"].workers()
    assert await agents["one"].workers() == []
    assert agents["two"].traits == servers["two"].traits
    servers["two"].fault = None
    servers["two"].goes_on.set()
    await asyncio.wait_for(agents.opened("two"), 5)
    await eventually(lambda: arrived == ["two"])
    assert await agents["two"].workers() == []
    assert agents.reports["two"].incarnation


async def test_an_unsafe_one_ends_the_start_and_leaves_none_open(agents: Agents, servers: dict[str, Any]) -> None:
    servers["two"].fault = UnsafeStore("db", "fsync", "off", "switch it on", "jobs are lost")
    with pytest.raises(UnsafeStore) as caught:
        await agents.open()
    assert "while opening agent 'two'" in caught.value.__notes__
    with pytest.raises(AgentUnreachable, match="closed"):
        await agents["one"].workers()


@pytest.mark.parametrize("how", ["down", "hangs"])
async def test_placement_passes_over_one_that_does_not_answer_and_comes_back_to_it(
    agents: Agents, servers: dict[str, Any], how: str
) -> None:
    await agents.open()
    assert (await agents.backlog()).keys() == {"one", "two"}
    if how == "down":
        servers["two"].fault = AgentUnreachable("two", "connection refused")
    else:
        servers["two"].goes_on.clear()
    backlog = await agents.backlog()
    assert {choose_agent(agents.names, backlog, Random(seed)) for seed in range(20)} == {"one"}
    servers["two"].fault = None
    servers["two"].goes_on.set()

    async def known() -> bool:
        return (await agents.backlog()).keys() == {"one", "two"}

    await eventually(known)


async def test_one_that_hangs_is_waited_for_once(agents: Agents, servers: dict[str, Any]) -> None:
    await agents.open()
    servers["two"].goes_on.clear()
    await agents.backlog()
    asked = servers["two"].asked
    began = asyncio.get_running_loop().time()
    for _ in range(50):
        await agents.backlog()
    assert asyncio.get_running_loop().time() - began < 50 * agents_open.READING_SECONDS / 2
    assert servers["two"].asked == asked
