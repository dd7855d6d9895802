"""Plans are part of the contract: no verb sorts or scans, whatever the statistics say."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from jobmaster.model.job import Job
from jobmaster_agents.sqlite import SqliteAgent
from tests.sizes import SIZES
from tests.unit.sqlite.plans import complaints, fill

VERBS = ("put", "claim", "extend", "settle", "reap", "promote", "park", "stats", "changes", "confirm", "prune", "find")
PAGED = ("inventory", "jobs", "withdraw")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[SqliteAgent, list[Job]]]:
    folder: Path = tmp_path_factory.mktemp("plans")
    agent = SqliteAgent(f"sqlite:///{folder}/jobs.db", cluster="plans", name="transport-1")
    await agent.open()
    yield agent, await fill(agent, SIZES.plan_rows)
    await agent.close()


@pytest.mark.parametrize("statistics", ["none", "fresh", "stale"])
@pytest.mark.asyncio(loop_scope="module")
async def test_no_verb_sorts_or_scans(full: tuple[SqliteAgent, list[Job]], statistics: str) -> None:
    agent, leased = full
    database = agent.verbs.store.database
    if statistics != "none":
        await database.write(lambda connection: connection.execute("ANALYZE"))
    if statistics == "stale":
        # What ANALYZE would have noted when the table was all but empty.
        await database.write(lambda connection: connection.execute("UPDATE sqlite_stat1 SET stat = '1 1 1 1'"))
    found = [complaint for verb in (*VERBS, *PAGED) for complaint in await complaints(agent, verb, leased)]
    assert found == []


@pytest.mark.asyncio(loop_scope="module")
async def test_a_claim_passes_over_a_head_of_unknown_handlers_without_touching_a_row(
    full: tuple[SqliteAgent, list[Job]],
) -> None:
    agent, _ = full
    choose = agent.verbs.claiming.choose
    plan = await agent.verbs.store.database.read(
        lambda c: [row[3] for row in c.execute(f"EXPLAIN QUERY PLAN {choose}", ("default", '["none"]', 0, 10))]
    )
    assert any("USING INDEX" in step and "job_ready (lane=?)" in step for step in plan), plan
    assert not any("TEMP B-TREE FOR ORDER" in step for step in plan)
