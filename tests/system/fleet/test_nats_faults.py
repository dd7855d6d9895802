"""A NATS server, its network and its streams fail under load: nothing acknowledged is lost or committed twice."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobmaster import Indeterminate, JobHandle, Refused, Runtime
from jobmaster.contracts.values import StoreMode
from jobmaster_agents.nats import NatsAgent, api
from tests.servers import Nats
from tests.sizes import SIZES
from tests.support import eventually
from tests.system.fleet.accounts import Accounts, balanced
from tests.system.fleet.processes import Fleet, fleet
from tests.system.fleet.shop import Pack, Work
from tests.system.stalling_proxy import StallingProxy

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240 + 8 * SIZES.lease_seconds)]

Start = Callable[..., Nats]
TTL = SIZES.lease_seconds
LEASES = {
    "TIMINGS__LEASE_TTL": str(TTL),
    "TIMINGS__LEASE_BEAT": str(TTL / 3),
    "TIMINGS__LEASE_MARGIN": str(TTL / 6),
}
KILLS = 2 if SIZES.name == "short" else 10
RECOVERY_SECONDS = 60.0


@contextmanager
def shop_on(folder: Path, master: str, server: Nats, url: str | None = None) -> Iterator[Fleet]:
    options = {"transport-1": {"monitor": server.monitor, "ack_wait": max(TTL, 2.0)}}
    with fleet(folder, master, {"transport-1": url or server.url}, LEASES, options) as made:
        yield made


async def begins_anew(accounts: Accounts) -> None:
    await accounts.begun_after(time.monotonic(), within=RECOVERY_SECONDS)


async def test_a_server_that_is_killed_under_load_loses_nothing(
    tmp_path: Path, postgres_url: str, own_nats: Start
) -> None:
    server = own_nats()
    with shop_on(tmp_path, postgres_url, server) as shop:
        await shop.worker("--slots", "10")
        accounts = Accounts(shop)
        async with shop.cluster().run() as runtime:
            async with accounts.enqueuing(runtime):
                for _ in range(KILLS):
                    await begins_anew(accounts)
                    await asyncio.to_thread(server.kill)
                    await asyncio.to_thread(server.start)
                await begins_anew(accounts)
            figures = await balanced(accounts, postgres_url)
    print(f"{KILLS} kills of the server: {figures}")


async def test_a_worker_that_sleeps_past_its_leases_commits_nothing(
    tmp_path: Path, postgres_url: str, own_nats: Start
) -> None:
    server = own_nats()
    with shop_on(tmp_path, postgres_url, server) as shop:
        sleeper = await shop.worker("--slots", "10")
        async with shop.cluster().run() as runtime:
            jobs = [await runtime.scheduler.once_now(Pack, Work(seconds=TTL / 2, once=True)) for _ in range(10)]
            await eventually(lambda: len(shop.notes("begins")) == len(jobs), within=30)
            sleeper.send(signal.SIGSTOP)
            await shop.worker("--slots", "10")
            pids = {await job.result(timeout=4 * TTL + RECOVERY_SECONDS) for job in jobs}
            sleeper.send(signal.SIGCONT)
            # Awake again, it works on, and what it held is not committed a second time.
            more = [await runtime.scheduler.once_now(Pack, Work(seconds=0.05)) for _ in range(40)]
            by = {await job.result(timeout=RECOVERY_SECONDS) for job in more}
            await runtime.sync_history()
            infos = [await runtime.scheduler.get(job.id) for job in jobs]
    assert sleeper.pid not in pids
    assert sleeper.pid in by
    for info in infos:
        assert [str(run.outcome) for run in info.runs].count("succeeded") == 1


async def test_a_network_that_is_cut_is_outlived(tmp_path: Path, postgres_url: str, own_nats: Start) -> None:
    server = own_nats()
    proxy = StallingProxy(server.url)
    url = await proxy.start()
    try:
        with shop_on(tmp_path, postgres_url, server, url) as shop:
            await shop.worker("--slots", "10")
            accounts = Accounts(shop)
            async with shop.cluster().run() as runtime:
                async with accounts.enqueuing(runtime):
                    await begins_anew(accounts)
                    proxy.stall()
                    stalled = time.monotonic()
                    await eventually(lambda: time.monotonic() - stalled > TTL, within=TTL + 10)
                    proxy.go_on()
                    await begins_anew(accounts)
                figures = await balanced(accounts, postgres_url)
        assert proxy.held_up
    finally:
        await proxy.close()
    print(f"a network cut for {TTL:g} s: {figures}")


async def test_outcomes_that_are_emptied_behind_our_back_are_noticed_and_the_jobs_end(
    tmp_path: Path, postgres_url: str, own_nats: Start
) -> None:
    server = own_nats()
    with shop_on(tmp_path, postgres_url, server) as shop:
        async with shop.cluster().run() as runtime:
            agent = runtime.agents["transport-1"]
            first = (await agent.probe()).incarnation
            jobs = [await runtime.scheduler.once_now(Pack, Work()) for _ in range(50)]
            other = NatsAgent(server.url, cluster="fleet", name="transport-1", options={"monitor": server.monitor})
            await other.open()
            held = await other.claim("gone", {"default": 5}, frozenset({"pack"}), 5, 600_000_000)
            assert len(held) == 5
            store = other.verbs.store

            await api.call(store.link, f"STREAM.PURGE.{store.subjects.out_stream}")

            async def reconciled() -> bool:
                report = await agent.probe()
                return report.incarnation != first and report.mode is StoreMode.OPEN

            await eventually(reconciled, within=RECOVERY_SECONDS)
            await other.close()
            await runtime.add_worker(slots=10)
            for job in jobs:
                await job.result(timeout=RECOVERY_SECONDS)
            await runtime.sync_history()
            infos = [await runtime.scheduler.get(job.id) for job in jobs]
    assert {len(info.runs) for info in infos} == {1}


async def test_a_full_disk_refuses_and_everything_acknowledged_ends_once_there_is_room(
    tmp_path: Path, postgres_url: str, own_nats: Start
) -> None:
    server = own_nats()
    small = f'{{ store_dir: "{server.store}", sync_interval: always, max_file_store: 3MB }}'
    await asyncio.to_thread(server.restart, jetstream=small)
    with shop_on(tmp_path, postgres_url, server) as shop:
        async with shop.cluster().run() as runtime:
            acknowledged: list[JobHandle] = []
            with pytest.raises((Refused, Indeterminate)):
                await _fill(runtime, acknowledged)
            large = small.replace("3MB", "600MB")
            await asyncio.to_thread(server.restart, jetstream=large)
            await runtime.add_worker(slots=10)
            for job in acknowledged:
                await job.result(timeout=RECOVERY_SECONDS)
    assert len(acknowledged) > 100


async def _fill(runtime: Runtime, acknowledged: list[JobHandle]) -> None:
    """Enqueue until something is refused."""
    while len(acknowledged) < 20_000:
        acknowledged.append(await runtime.scheduler.once_now(Pack, Work(), metadata={"fill": "x" * 4_000}))


async def test_a_master_that_is_away_stops_nobody(
    tmp_path: Path, own_postgres: Callable[..., object], own_nats: Start
) -> None:
    master, server = own_postgres(), own_nats()
    url = master.url  # type: ignore[attr-defined]
    with shop_on(tmp_path, url, server) as shop:
        await shop.worker("--slots", "10")
        accounts = Accounts(shop)
        async with shop.cluster().run() as runtime:
            async with accounts.enqueuing(runtime):
                await begins_anew(accounts)
                await asyncio.to_thread(master.stop)  # type: ignore[attr-defined]
                refused, away = accounts.refused, time.monotonic()
                before = accounts.begun
                await eventually(
                    lambda: time.monotonic() - away > SIZES.master_away_seconds,
                    within=SIZES.master_away_seconds + 30,
                )
                assert accounts.begun > before
                assert accounts.refused == refused
                await asyncio.to_thread(master.start)  # type: ignore[attr-defined]
                await begins_anew(accounts)
            figures = await balanced(accounts, url)
    print(f"the master away for {SIZES.master_away_seconds:g} s: {figures}")
