"""The plans of what happens beside the hot path: at any size, a call reads about as much as it is about."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from jobmaster.contracts.values import Amendment, JobFilter, Revoke, RevokeKind
from jobmaster.model.ids import new_id
from jobmaster.model.priority import Priority
from jobmaster.testing.agents.cases import HANDLERS, LONG_US, card, make_job, put
from tests.system.test_postgres_plans import LANES, Full

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

DUE = 300
OLD = 500
LINES = len(LANES) * len(Priority)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(postgres_module_url: str) -> AsyncIterator[Full]:
    full = Full(postgres_module_url)
    await full.fill()
    for worker in range(20):
        await full.agent.register(card(f"w{worker}"))
    yield full
    await full.agent.close()


@pytest.mark.parametrize("statistics", ["missing", "from an empty table", "fresh"])
async def test_the_others_read_what_they_are_about(
    full: Full, statistics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, watched = full.agent, full.watched
    monkeypatch.setattr("jobmaster_agents.postgres.parking.LOOKED_AT", 100)
    # What is laid out for the test is not to be found by what the case before believed.
    await full.believe("fresh")
    await full.run(
        f"UPDATE {{p}}job SET due_us = 1 WHERE id IN (SELECT id FROM {{p}}job WHERE st = 1 ORDER BY due_us LIMIT {DUE})"
    )
    await full.run(
        "UPDATE {p}job SET expires_us = 1 WHERE id IN (SELECT id FROM {p}job WHERE st = 0 AND expires_us > 1 LIMIT 50)"
    )
    await full.run(
        f"UPDATE {{p}}tombstone SET at_us = 1 WHERE seq IN (SELECT seq FROM {{p}}tombstone ORDER BY seq LIMIT {OLD})"
    )
    await agent.claim("w1", dict.fromkeys(LANES, 30), HANDLERS, 90, LONG_US)
    await full.believe(statistics)
    wrong: list[str] = []

    with watched.complaints(100) as found:
        report = await agent.promote(100)
        assert (report.ready, report.expired, report.more) == (100, 50, True)
    wrong += found
    with watched.complaints(100 * LINES) as found:
        assert sum((await agent.park(HANDLERS, 100)).parked.values()) == 100
    wrong += found
    with watched.complaints(100 * LINES) as found:
        assert (await agent.park(HANDLERS | {"unknown"}, 100)).unparked == 100
    wrong += found
    with watched.complaints(LINES) as found:
        assert {stats.lane for stats in await agent.stats()} >= set(LANES)
    wrong += found
    with watched.complaints(100) as found:
        records = await agent.changes(100)
        assert len(records) == 100
    wrong += found
    with watched.complaints(100) as found:
        await agent.confirm([record.seq for record in records])
    wrong += found
    with watched.complaints(100) as found:
        assert await agent.prune(100) == 100
    wrong += found
    waiting = (await agent.peek(JobFilter(), None, 50)).jobs
    ids = [job.id for job in waiting]
    with watched.complaints(100) as found:
        await agent.find([*ids, new_id()])
        await agent.inventory("", 50)
        await agent.inventory(ids[-1], 50)
        await agent.jobs("", ids[0], 50)
        await agent.jobs(ids[-1], ids[0], 50)
        await agent.peek(JobFilter(), ids[-1], 50)
        await agent.watch(frozenset(ids), 0.01)
    wrong += found
    with watched.complaints(200) as found:
        # The leased ones, which are few, by an index of their own.
        await agent.jobs("", "ffffffff-ffff-ffff-ffff-ffffffffffff", 50, leased_only=True)
    wrong += found
    now_us = await agent.store_now_us()
    new = [make_job(now_us) for _ in range(50)]
    await put(agent, *new)
    with watched.complaints(100) as found:
        await agent.amend([Amendment(id=job.id, version=1, priority=1) for job in new])
        await agent.revoke([Revoke(job.id, 1, RevokeKind.CANCEL) for job in new])
        await agent.revoke([Revoke(new_id(), 1, RevokeKind.CANCEL) for _ in range(50)])
        await agent.withdraw(None, 50)
    wrong += found

    assert wrong == [], "\n".join(wrong)
