"""Plans are part of the contract: at any size, whatever the planner believes, a hot statement reads what it gives."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from jobmaster.contracts.values import Extension, PutAnswer, Release, SettleAnswer
from jobmaster.model.outcome import RunOutcome
from jobmaster.testing.agents.cases import HANDLER, HANDLERS, LONG_US, make_job, put, settlement
from jobmaster_agents.postgres import PostgresAgent
from jobmaster_agents.postgres.tables import Tables
from tests.sizes import SIZES
from tests.system.postgres_plans import Watched

ROWS = SIZES.plan_rows
LANES = ("default", "second", "third")
QUOTAS = {"default": 40, "second": 30, "third": 30}
COLUMNS = "seq, id, st, handler, lane, priority, epoch, version, created_us, original_due_us, due_us, policy, data"
A_LANE = f"(ARRAY{list(LANES)})[1 + n % {len(LANES)}]"
LEASED = 1_000
BATCH = 2_000

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


class Full:
    """An agent with a million of everything."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.agent = PostgresAgent(url, cluster="plans", name="transport-1")
        self.tables = Tables("plans", "transport-1")
        self.watched: Watched

    async def run(self, sql: str) -> None:
        connection = await asyncpg.connect(self.url)
        await connection.execute(sql.replace("{p}", self.tables.prefix))
        await connection.close()

    async def look_twice(self) -> None:
        """Two claims from the beginning, as one comes each second; the next one may begin behind what they saw."""
        for _ in range(2):
            for line in self.agent.verbs.claiming.floors._lines.values():
                line.looks.forget()
            assert len(await self.agent.claim("w1", QUOTAS, HANDLERS, 100, LONG_US)) == 100

    async def fill(self) -> None:
        """Ready jobs in three lanes and all priorities, behind a head that nobody here can run; as many delayed, some
        with an expiry; leased ones; and tombstones and outbox records."""
        await self.agent.open()
        now_us = await self.agent.store_now_us()
        # A vacuum in between would hide what dead rows cost.
        for table in ("job", "outbox", "tombstone"):
            await self.run(f"ALTER TABLE {{p}}{table} SET (autovacuum_enabled = false)")
        await self.ready(f"CASE WHEN n <= {ROWS // 10} THEN 'unknown' ELSE '{HANDLER}' END")
        await self.run(
            f"INSERT INTO {{p}}job ({COLUMNS}) "
            f"SELECT n, gen_random_uuid(), 1, '{HANDLER}', {A_LANE}, n % 5, 1, 1, {now_us}, {now_us}, "
            f"{now_us} + 3600000000 + n, '{{}}', 'null' FROM generate_series(1, {ROWS}) AS n"
        )
        await self.run(
            f"INSERT INTO {{p}}tombstone (id, seq, epoch, last_token, digest, at_us) "
            f"SELECT gen_random_uuid(), nextval('{{p}}outbox_seq'), 1, 1, 1, {now_us} FROM generate_series(1, {ROWS})"
        )
        await self.run(
            "INSERT INTO {p}outbox (seq, kind, at_us) SELECT seq, 'plain', at_us FROM {p}tombstone ORDER BY seq"
        )
        self.watched = await Watched.of(self.agent, self.tables)

    async def ready(self, handler: str) -> None:
        """As many ready jobs again, spread over lanes and priorities; `handler` is SQL that may look at `n`."""
        now_us = await self.agent.store_now_us()
        await self.run(
            f"INSERT INTO {{p}}job ({COLUMNS}, expires_us) "
            f"SELECT n, gen_random_uuid(), 0, {handler}, {A_LANE}, n % 5, 1, 1, {now_us}, {now_us}, {now_us}, '{{}}', "
            f"'null', CASE WHEN n % 100 = 0 THEN {now_us} + 3600000000 END FROM generate_series(1, {ROWS}) AS n"
        )

    async def believe(self, statistics: str) -> None:
        """What the planner knows: nothing, or how it is, or how it was."""
        if statistics == "missing":
            await self.run(
                "DELETE FROM pg_statistic WHERE starelid IN ('{p}job'::regclass, '{p}outbox'::regclass, "
                "'{p}tombstone'::regclass); UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE oid IN "
                "('{p}job'::regclass, '{p}outbox'::regclass, '{p}tombstone'::regclass)"
            )
        else:
            await self.run("ANALYZE {p}job; ANALYZE {p}outbox; ANALYZE {p}tombstone")
        if statistics == "from an empty table":
            await self.run(
                "UPDATE pg_class SET reltuples = 0, relpages = 1 WHERE oid IN "
                "('{p}job'::regclass, '{p}outbox'::regclass, '{p}tombstone'::regclass)"
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(postgres_module_url: str) -> AsyncIterator[Full]:
    full = Full(postgres_module_url)
    await full.fill()
    yield full
    await full.agent.close()


@pytest.mark.parametrize("statistics", ["missing", "from an empty table", "nothing leased", "fresh"])
async def test_hot_statements_read_what_they_give(full: Full, statistics: str) -> None:
    agent, watched = full.agent, full.watched
    if statistics == "nothing leased":
        await full.believe(statistics)
    await agent.claim("other", dict.fromkeys(LANES, LEASED // 3), HANDLERS, LEASED, LONG_US)
    if statistics != "nothing leased":
        await full.believe(statistics)
    now_us = await agent.store_now_us()
    wrong: list[str] = []
    jobs = [make_job(now_us) for _ in range(100)]

    with watched.complaints(100) as found:
        assert set(await put(agent, *jobs)) == {PutAnswer.STORED}
    wrong += found
    with watched.complaints(100) as found:
        assert set(await put(agent, *jobs)) == {PutAnswer.DUPLICATE}
    wrong += found
    await full.look_twice()
    with watched.complaints(100) as found:
        claimed = await agent.claim("w1", QUOTAS, HANDLERS, 100, LONG_US)
        assert len(claimed) == 100
    wrong += found
    with watched.complaints(100) as found:
        await agent.extend([Extension(job.id, job.token) for job in claimed], LONG_US)
    wrong += found
    with watched.complaints(50) as found:
        await agent.extend([Extension(job.id, job.token, started=True) for job in claimed[:50]], LONG_US)
    wrong += found
    with watched.complaints(50) as found:
        assert set(await agent.settle([settlement(job) for job in claimed[:50]])) == {SettleAnswer.ACCEPTED}
    wrong += found
    with watched.complaints(20) as found:
        await agent.settle([settlement(job, RunOutcome.FAILED, error="E: e", progress=1) for job in claimed[50:70]])
    wrong += found
    with watched.complaints(20) as found:
        await agent.settle([settlement(job, RunOutcome.RETRY_AT) for job in claimed[70:90]])
    wrong += found
    with watched.complaints(20) as found:
        await agent.settle([settlement(job) for job in claimed[70:90]])
    wrong += found
    with watched.complaints(10) as found:
        await agent.release([Release(job.id, job.token) for job in claimed[90:]])
    wrong += found
    # All leased rows are looked at, as nothing tells which of them ran out.
    with watched.complaints(LEASED * 5) as found:
        assert (await agent.reap(100)).requeued == 0
    wrong += found

    assert wrong == []


async def test_what_went_through_is_not_read_again(full: Full) -> None:
    """A million jobs leave as many dead entries at the heads of their lines, and nobody has vacuumed."""
    fresh = await pages_of_a_claim(full)
    gone = 0
    await full.ready(f"'{HANDLER}'")
    # By a handle that is not watched, which would take four times as long.
    other = PostgresAgent(full.url, cluster="plans", name="transport-1")
    await other.open()
    while gone < ROWS:
        claimed = await other.claim("w1", dict.fromkeys(LANES, BATCH // 3), HANDLERS, BATCH, LONG_US)
        assert claimed
        await other.settle([settlement(job) for job in claimed])
        gone += len(claimed)
    await other.close()

    assert await pages_of_a_claim(full) < 1.5 * fresh + 200


async def pages_of_a_claim(full: Full) -> int:
    """How many pages a claim of 100 looks at that need not begin at the beginning."""
    await full.look_twice()
    full.watched.forget()
    assert len(await full.agent.claim("w1", QUOTAS, HANDLERS, 100, LONG_US)) == 100
    return full.watched.pages
