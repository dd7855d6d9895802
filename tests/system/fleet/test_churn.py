"""Worker processes are started, stopped and killed at random under load: every job that was acknowledged is committed
once, and none that was not."""

import asyncio
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.sizes import SIZES
from tests.support import paced
from tests.system.fleet.accounts import Accounts, balanced
from tests.system.fleet.processes import Fleet, WorkerProcess, fleet

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240 + 4 * SIZES.churn_seconds)]

TTL = SIZES.lease_seconds
LEASES = {
    "TIMINGS__LEASE_TTL": str(TTL),
    "TIMINGS__LEASE_BEAT": str(TTL / 3),
    "TIMINGS__LEASE_MARGIN": str(TTL / 6),
}
SEED = 20


async def test_workers_started_and_killed_at_random_lose_and_double_nothing(tmp_path: Path, postgres_url: str) -> None:
    with fleet(tmp_path, postgres_url, {"transport-1": postgres_url}, LEASES) as shop:
        accounts = Accounts(shop, room=200)
        async with shop.cluster().run() as runtime:
            async with accounts.enqueuing(runtime):
                deeds = await churned(shop, random.Random(SEED))
            # Whoever is left finishes it; there may be nobody.
            last = await shop.worker("--slots", "10")
            figures = await balanced(accounts, postgres_url, within=120 + 4 * TTL)
            assert last.process.poll() is None
        print(f"{dict(deeds)}: {figures}")
        assert deeds["killed"] >= 2
        assert figures["acknowledged"] > 0


async def churned(shop: Fleet, rng: random.Random) -> Counter[str]:
    deeds: Counter[str] = Counter()
    alive: list[WorkerProcess] = []
    never = asyncio.Event()
    ends = time.monotonic() + SIZES.churn_seconds
    while time.monotonic() < ends or deeds["killed"] < 2:
        choice = rng.random()
        if not alive or (choice < 0.5 and len(alive) < SIZES.churn_workers):
            # Started, and not waited for: the next deed may meet it half-way.
            alive.append(shop.begin("--slots", str(rng.choice((1, 5, 20)))))
            deeds["started"] += 1
            if len(alive) == 1:
                await asyncio.to_thread(alive[0].ready)
        elif choice < 0.85:
            await asyncio.to_thread(alive.pop(rng.randrange(len(alive))).kill)
            deeds["killed"] += 1
        else:
            alive.pop(rng.randrange(len(alive))).send(signal.SIGTERM)
            deeds["stopped"] += 1
        await paced(never, rng.uniform(0.1, 0.6))
    return deeds
