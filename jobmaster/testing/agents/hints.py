"""Hints: `wait` and `watch` come back early when there is something to look at, and in time when there is not."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import Control, ControlKind, ExtendAnswer, Extension, Revoke, RevokeKind
from jobmaster.testing.agents.cases import (
    LANE,
    LONG_US,
    AgentCases,
    claimed_new,
    make_job,
    put,
    put_new,
    release,
    settle,
)
from jobmaster.testing.agents.harness import AgentStore, skip

LANES = frozenset({LANE})
FAR = 90.0
"""Seconds that a hint must save; the test fails long before."""
PATIENCE = 30.0


async def _begun(store: AgentStore, waiting: Awaitable[None]) -> asyncio.Future[None]:
    """A wait that has surely begun."""
    waiter = asyncio.ensure_future(waiting)
    for _ in range(10):
        await asyncio.sleep(0)
    await store.advance(0.05)
    return waiter


async def _wakes(store: AgentStore, waiting: Awaitable[None], act: Callable[[], Awaitable[object]]) -> None:
    """Act while somebody waits; the wait must end early."""
    waiter = await _begun(store, waiting)
    assert not waiter.done()
    await act()
    async with asyncio.timeout(PATIENCE):
        await waiter


class HintCases(AgentCases):
    async def _quiet(self, store: AgentStore, agent: AgentTransport) -> None:
        """Nothing new is left to hear of."""
        while True:
            waiter = await _begun(store, agent.wait(LANES, 0.2))
            if not waiter.done():
                break
            await waiter
        await store.advance(0.2)
        await waiter

    async def test_a_put_ends_a_wait(self, store: AgentStore, agent: AgentTransport) -> None:
        await self._quiet(store, agent)

        await _wakes(store, agent.wait(LANES, FAR), lambda: put_new(agent))

    async def test_a_put_before_the_wait_is_not_missed(self, store: AgentStore, agent: AgentTransport) -> None:
        await self._quiet(store, agent)
        await put_new(agent)

        async with asyncio.timeout(PATIENCE):
            await agent.wait(LANES, FAR)

    async def test_a_release_and_a_promotion_end_a_wait(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await put(agent, make_job(job.due_us, due_us=await agent.store_now_us() + 1_500_000))
        await self._quiet(store, agent)
        await _wakes(store, agent.wait(LANES, FAR), lambda: release(agent, job))
        if agent.traits.fires_delays:
            async with asyncio.timeout(PATIENCE):
                await agent.wait(LANES, FAR)
            return
        await store.advance(1.5)

        await _wakes(store, agent.wait(LANES, FAR), lambda: agent.promote(10))

    async def test_resuming_ends_a_wait(self, store: AgentStore, agent: AgentTransport) -> None:
        await put_new(agent)
        await agent.control(Control(ControlKind.PAUSE_LANE, LANE))
        await self._quiet(store, agent)
        await _wakes(store, agent.wait(LANES, FAR), lambda: agent.control(Control(ControlKind.RESUME_LANE, LANE)))
        await agent.control(Control(ControlKind.PAUSE))
        await self._quiet(store, agent)

        await _wakes(store, agent.wait(LANES, FAR), lambda: agent.control(Control(ControlKind.RESUME)))

    async def test_a_wait_ends_in_time_where_nothing_comes(self, store: AgentStore, agent: AgentTransport) -> None:
        await self._quiet(store, agent)
        waiter = await _begun(store, agent.wait(LANES, 0.2))
        await store.advance(0.2)

        async with asyncio.timeout(PATIENCE):
            await waiter

    async def test_another_lane_is_no_reason(self, store: AgentStore, agent: AgentTransport) -> None:
        await self._quiet(store, agent)
        waiter = await _begun(store, agent.wait(LANES, FAR))
        await put_new(agent, lane="other")
        await store.advance(0.05)
        early = waiter.done()
        await put_new(agent)
        await waiter

        # Only a hint, so waking too often is no fault of a transport that can't tell lanes apart.
        assert not early or not agent.traits.pushes_wakeups

    async def test_a_put_by_another_process_ends_a_wait(self, store: AgentStore, agent: AgentTransport) -> None:
        if not agent.traits.pushes_wakeups:
            skip("trait pushes_wakeups is false: other processes' puts are found by polling")
        other = await store.open()
        await self._quiet(store, agent)

        await _wakes(store, agent.wait(LANES, FAR), lambda: put_new(other))

    async def test_a_job_that_ends_ends_a_watch(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        await _wakes(store, agent.watch(frozenset({job.id}), FAR), lambda: settle(agent, job))
        other = await claimed_new(agent)
        cancel = Revoke(other.id, 1, RevokeKind.CANCEL)

        await _wakes(store, agent.watch(frozenset({other.id}), FAR), lambda: agent.revoke([cancel]))

    async def test_a_watch_ends_in_time(self, store: AgentStore, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        waiter = await _begun(store, agent.watch(frozenset({job.id}), 0.2))
        await store.advance(0.2)

        async with asyncio.timeout(PATIENCE):
            await waiter

    async def test_a_companion_works_while_the_first_loop_is_blocked(self, agent: AgentTransport) -> None:
        job = await claimed_new(agent)
        companion = agent.companion()
        answers: list[ExtendAnswer] = []
        done = threading.Event()

        async def keep() -> None:
            for _ in range(3):
                answers.extend(await companion.extend([Extension(job.id, job.token)], LONG_US))

        def thread() -> None:
            asyncio.run(keep())
            done.set()

        keeper = threading.Thread(target=thread)
        keeper.start()
        # This blocks the event loop that the transport was opened on, as a careless handler would.
        blocked_until = time.monotonic() + PATIENCE
        while not done.is_set() and time.monotonic() < blocked_until:
            done.wait(0.01)
        keeper.join(PATIENCE)

        assert answers == [ExtendAnswer.HELD] * 3
