"""What those who run a cluster ask."""

from typing import Any

import pytest
from msgspec.structs import replace

from jobmaster.contracts.values import Control, ControlKind, StoreMode, WorkerCard
from jobmaster.enqueue import Enqueue
from jobmaster.model.errors import AgentUnreachable
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import FailReason
from tests.unit.scheduler.kit import Kit, Plain, SendWelcome, Welcome, opened

pytestmark = pytest.mark.asyncio


def card(kit: Kit, name: str, *lanes: str) -> WorkerCard:
    return WorkerCard(
        id=f"{name}-1",
        name=name,
        host="here",
        pid=1,
        lanes=lanes,
        handlers=("send-welcome",),
        slots=10,
        busy=3,
        started_us=kit.clock.wall_us(),
    )


async def test_workers_are_those_of_all_agents_and_the_silent_ones_are_not_alive() -> None:
    async with opened(("a", "b")) as kit:
        operations = kit.scheduler().operations
        await kit.transports["b"].register(card(kit, "early", "default"))
        kit.clock.advance(20)
        await kit.transports["a"].register(card(kit, "late", "default"))
        workers = await operations.workers()
        assert [(worker.name, worker.agent, worker.alive, worker.busy) for worker in workers] == [
            ("late", "a", True, 3),
            ("early", "b", False, 3),
        ]


async def test_hosts_are_what_the_workers_told_the_master() -> None:
    async with opened(("a", "b")) as kit:
        topology = kit.scheduler().topology
        assert await topology.hosts() == ()
        lost = replace(card(kit, "lost", "default"), host="attic", rss_bytes=7)
        await kit.master.beat("a", lost)
        kit.clock.advance(20)
        for name, agent, pid, rss in [("one", "a", 1, 100), ("two", "b", 1, 100), ("three", "b", 2, 50)]:
            await kit.master.beat(agent, replace(card(kit, name, "default"), pid=pid, rss_bytes=rss))
        attic, here = await topology.hosts()
        assert (attic.name, attic.workers, attic.alive, attic.rss_bytes) == ("attic", ("lost-1",), 0, None)
        assert (here.name, here.alive, here.agents, here.slots, here.busy) == ("here", 3, ("a", "b"), 30, 9)
        # Two workers of one process share its memory.
        assert here.rss_bytes == 150
        assert (here.seen_at - attic.seen_at).total_seconds() == 20
        await kit.master.beat("a", replace(card(kit, "one", "default"), pid=1, rss_bytes=None))
        await kit.master.beat("b", replace(card(kit, "two", "default"), pid=1, rss_bytes=None))
        assert (await topology.hosts())[1].rss_bytes is None


async def test_agents_are_shown_with_their_state_and_with_what_is_wrong() -> None:
    async with opened(("a", "b")) as kit:
        scheduler = kit.scheduler()
        await scheduler.many(Enqueue(SendWelcome, Welcome(str(n)), agent="a") for n in range(3))
        await kit.claim(limit=1)
        await kit.transports["a"].control(Control(ControlKind.PAUSE_LANE, "plain"))

        async def away(*_: Any) -> Any:
            raise AgentUnreachable("b", "connection refused")

        kit.transports["b"].control = away
        one, other = await scheduler.operations.agents()
        assert (one.name, one.reachable, one.mode, one.paused_lanes) == ("a", True, StoreMode.OPEN, ("plain",))
        assert (one.ready, one.running, one.delayed, one.parked) == (2, 1, 0, 0)
        assert (other.name, other.reachable) == ("b", False)
        assert "connection refused" in (other.problem or "")


async def test_a_lane_with_ready_jobs_and_no_live_worker_is_named() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        await scheduler.once_now(SendWelcome, Welcome("u"))
        await scheduler.once_now(Plain)
        await kit.transports["a"].register(card(kit, "w", "default"))
        assert await scheduler.operations.unserved_lanes() == ("plain",)
        kit.clock.advance(20)
        assert await scheduler.operations.unserved_lanes() == ("default", "plain")


async def test_dead_letters_are_grouped_by_handler_reason_and_error() -> None:
    async with opened() as kit:
        scheduler = kit.scheduler()
        handles = await scheduler.many(Enqueue(SendWelcome, Welcome(str(n))) for n in range(6))
        for number, job in enumerate(sorted(await kit.claim(), key=lambda job: job.id)):
            error = "ValueError: x" if number < 4 else "KeyError: y"
            await kit.settle(job, outcome=RunOutcome.FAILED, reason=FailReason.EXHAUSTED, error=error)
        await kit.sync()
        report = await scheduler.operations.dead_letters()
        assert report.complete
        assert [(group.error_type, group.count, group.newest_id) for group in report.groups] == [
            ("ValueError", 4, handles[3].id),
            ("KeyError", 2, handles[5].id),
        ]
        part = await scheduler.operations.dead_letters(look_at=3)
        assert (sum(group.count for group in part.groups), part.complete) == (3, False)
        assert (await scheduler.operations.dead_letters(handler="plain")).groups == ()
