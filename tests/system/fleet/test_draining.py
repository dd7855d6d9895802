"""An agent is drained under load: worker processes on both, enqueuers that go on, a coordinator killed on the way."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from jobmaster import Refused
from jobmaster.contracts.entries import AgentState
from jobmaster.enqueue import Enqueue
from tests.servers.databases import create_database, drop_database
from tests.sizes import SIZES
from tests.support import eventually
from tests.system.fleet.accounts import Accounts, balanced
from tests.system.fleet.processes import Fleet, fleet
from tests.system.fleet.shop import Pack, Work

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(300)]

TTL = SIZES.lease_seconds
LEASES = {
    "TIMINGS__LEASE_TTL": str(TTL),
    "TIMINGS__LEASE_BEAT": str(TTL / 3),
    "TIMINGS__LEASE_MARGIN": str(TTL / 6),
}
WAITING = 1_500
SOON = 300


@pytest.mark.parametrize("kind", ["postgres", "sqlite", "mysql", "nats"] if SIZES.name == "full" else ["postgres"])
async def test_an_agent_is_drained_under_load_and_every_job_runs_once(
    tmp_path: Path, postgres_url: str, kind: str, request: pytest.FixtureRequest
) -> None:
    other = create_database(postgres_url)
    first = f"sqlite:///{tmp_path / 'one.db'}" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    options = {"one": {"accept_unsafe": True}} if kind == "nats" else {}
    try:
        with fleet(tmp_path, postgres_url, {"one": first, "two": other}, LEASES, options) as shop:
            await drained_under_load(shop, postgres_url)
    finally:
        drop_database(postgres_url, other)


async def drained_under_load(shop: Fleet, master: str) -> None:
    accounts = Accounts(shop, room=WAITING + SOON + 400)
    one, _ = await asyncio.gather(
        shop.worker("--agent", "one", "--slots", "4", "--name", "w1"),
        shop.worker("--agent", "two", "--slots", "4", "--name", "w2"),
    )
    async with shop.cluster().run() as runtime:
        scheduler = runtime.scheduler
        # Slow ones, so that a queue stands on the agent that leaves; and some that are delayed there.
        for options in ({}, {"when": timedelta(seconds=3)}):
            count = WAITING if not options else SOON
            handles = await scheduler.many(
                Enqueue(Pack, Work(seconds=0.004), agent="one", **options)  # type: ignore[arg-type]
                for _ in range(count)
            )
            accounts.acknowledged.extend(handles.ids)
        async with accounts.enqueuing(runtime):
            await eventually(lambda: len(shop.notes("ends")) > 50, within=60, what="both work")
            await scheduler.topology.drain("one", who="the test")
            # The process that ran what runs there dies in the middle.
            one.kill()

            async def is_drained() -> bool:
                return (await scheduler.topology.agent("one")).state is AgentState.DRAINED

            await eventually(is_drained, within=120, what="agent one is drained")
            began = accounts.begun
            await eventually(lambda: accounts.begun > began + 20, within=60, what="work goes on at the other agent")
        figures = await balanced(accounts, master)
        standing = await scheduler.topology.agent("one")
        assert (standing.waiting, standing.running, standing.settled) == (0, 0, True)
        with pytest.raises(Refused, match="drain"):
            await scheduler.once_now(Pack, Work(), agent="one")
        print(f"drained with {WAITING + SOON} waiting: {figures}")
