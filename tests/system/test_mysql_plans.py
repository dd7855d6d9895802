"""Plans are part of the contract: at any size, whatever the optimizer believes, a hot statement reads what it gives."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from jobmaster.contracts.values import Extension, JobFilter, PutAnswer, Release, Revoke, RevokeKind, SettleAnswer
from jobmaster.model.outcome import RunOutcome
from jobmaster.testing.agents.cases import HANDLER, HANDLERS, LONG_US, make_job, put, settlement
from jobmaster_agents.mysql import MysqlAgent
from jobmaster_agents.mysql.tables import Tables
from tests.contract.mysql_store import connect
from tests.sizes import SIZES
from tests.system.mysql_plans import Watched

ROWS = SIZES.plan_rows
LANES = ("default", "second", "third")
QUOTAS = {"default": 40, "second": 30, "third": 30}
LEASED = 1_000
BATCH = 100
LARGE = ("job", "outbox", "tombstone")

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


class Full:
    """An agent with as many of everything as is promised to make no difference."""

    def __init__(self, url: str, name: str) -> None:
        self.agent = MysqlAgent(url, cluster="plans", name=name)
        self.tables = Tables("plans", name)
        self.watched: Watched
        self._operator = connect(url)

    def run(self, *statements: str) -> None:
        with self._operator.cursor() as cursor:
            for sql in statements:
                cursor.execute(sql.replace("{p}", self.tables.prefix))

    async def fill(self) -> None:
        """Ready jobs in three lanes and all priorities; as many delayed; leased ones; tombstones and outbox records."""
        await self.agent.open()
        now_us = await self.agent.store_now_us()
        # What is known of the tables is what was known when they were empty.
        for table in LARGE:
            self.run(f"ALTER TABLE {{p}}{table} STATS_AUTO_RECALC = 0", f"ANALYZE TABLE {{p}}{table}")
        self.run("CREATE TABLE {p}numbers (n INT PRIMARY KEY)", "INSERT INTO {p}numbers VALUES (1)")
        size = 1
        while size < ROWS:
            self.run(f"INSERT INTO {{p}}numbers SELECT n + {size} FROM {{p}}numbers WHERE n + {size} <= {ROWS}")
            size *= 2
        lane = f"ELT(1 + n % {len(LANES)}, {', '.join(repr(name) for name in LANES)})"
        columns = "id, st, line, line_rank, seq, handler, lane, priority, epoch, version, created_us, original_due_us"
        rest = f"'{HANDLER}', {lane}, n % 5, 1, 1, {now_us}, {now_us}"
        into = f"INSERT INTO {{p}}job ({columns}, due_us, policy, data) SELECT UUID()"
        later = now_us + 3_600_000_000
        self.run(
            f"{into}, 0, {lane}, n % 5, n, {rest}, {now_us}, '{{}}', 'null' FROM {{p}}numbers",
            f"{into}, 1, '', 0, {later} + n, {rest}, {later} + n, '{{}}', 'null' FROM {{p}}numbers",
            f"UPDATE {{p}}job SET expires_us = {later} WHERE seq % 100 = 0",
            "INSERT INTO {p}tombstone (id, seq, epoch, last_token, digest, at_us) "
            f"SELECT UUID(), n, 1, 1, 1, {now_us} FROM {{p}}numbers",
            f"INSERT INTO {{p}}outbox (seq, kind, at_us) SELECT n, 'plain', {now_us} FROM {{p}}numbers",
        )
        self.watched = await Watched.of(self.agent, self.tables)

    def believe(self, statistics: str) -> None:
        """`stale`: what was known of the empty tables, and how many rows came since. `lost`: as after a restart, that
        they are empty. `fresh`: what is so."""
        for table in LARGE:
            if statistics == "fresh":
                self.run(f"ANALYZE TABLE {{p}}{table}")
            elif statistics == "lost":
                # MariaDB reads again what it wrote down, but not upon FLUSH TABLE (MDEV-35000).
                self.run(f"RENAME TABLE {{p}}{table} TO {{p}}aside, {{p}}aside TO {{p}}{table}")
                assert self.believed_rows(table) == 0

    def believed_rows(self, table: str) -> int:
        with self._operator.cursor() as cursor:
            cursor.execute(
                "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = %s",
                (f"{self.tables.prefix}{table}",),
            )
            [(rows,)] = cursor.fetchall()
        return int(rows)

    async def check(self, rows: int, call: Callable[[], Awaitable[object]], *, sorts: int | None = None) -> None:
        """`sorts`: how many rows may be sorted, if not all that are asked for."""
        async with self.watched.complaints(rows, rows if sorts is None else sorts) as found:
            await call()
        assert not found, found

    async def close(self) -> None:
        await self.agent.close()
        self._operator.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["stale", "lost", "fresh"])
async def full(request: pytest.FixtureRequest, mysql_server: object) -> AsyncIterator[Full]:
    # The tests come in any order, so each has tables of its own.
    there = Full(request.getfixturevalue("mysql_module_url"), request.param)
    await there.fill()
    there.believe(request.param)
    yield there
    await there.close()


async def test_every_verb_reads_what_it_gives(full: Full) -> None:
    agent = full.agent
    now_us = await agent.store_now_us()
    jobs = [make_job(now_us) for _ in range(BATCH)]
    answers: list[PutAnswer] = []

    async def putting() -> None:
        answers.extend(await put(agent, *jobs))

    await full.check(BATCH, putting)
    assert answers == [PutAnswer.STORED] * BATCH
    await full.check(BATCH, putting)
    assert answers[BATCH:] == [PutAnswer.DUPLICATE] * BATCH

    claimed = []

    async def claiming() -> None:
        claimed.extend(await agent.claim("w1", QUOTAS, HANDLERS, BATCH, LONG_US))

    for _ in range(3):
        await full.check(BATCH, claiming, sorts=0)
    assert len(claimed) == 3 * BATCH
    first, second, third = (claimed[at : at + BATCH] for at in range(0, 3 * BATCH, BATCH))

    await full.check(BATCH, lambda: agent.extend([Extension(job.id, job.token) for job in claimed[:BATCH]], LONG_US))
    started = [Extension(job.id, job.token, started=True) for job in claimed[:BATCH]]
    await full.check(BATCH, lambda: agent.extend(started, LONG_US))
    settled: list[SettleAnswer] = []

    async def settling(outcome: RunOutcome) -> None:
        settled.extend(await agent.settle([settlement(job, outcome) for job in first]))

    await full.check(BATCH, lambda: settling(RunOutcome.SUCCEEDED))
    assert settled == [SettleAnswer.ACCEPTED] * BATCH
    await full.check(BATCH, lambda: settling(RunOutcome.SUCCEEDED))
    retried = [settlement(job, RunOutcome.RETRY_AT, after_us=LONG_US) for job in second]
    await full.check(BATCH, lambda: agent.settle(retried))
    await full.check(BATCH, lambda: agent.release([Release(job.id, job.token) for job in third]))


async def test_what_is_done_in_the_background_reads_what_it_gives(full: Full) -> None:
    agent = full.agent
    await agent.claim("w2", QUOTAS, HANDLERS, BATCH, LONG_US)
    # Leases are few, and looked through.
    await full.check(LEASED, lambda: agent.reap(BATCH))
    await full.check(LEASED, lambda: agent.reap(BATCH, frozenset({"w2"})))
    await full.check(BATCH, lambda: agent.promote(BATCH))
    full.run(f"UPDATE {{p}}job SET seq = 1 WHERE st = 1 ORDER BY id LIMIT {BATCH}")
    await full.check(BATCH, lambda: agent.promote(BATCH), sorts=0)
    await full.check(BATCH, lambda: agent.changes(BATCH), sorts=0)
    seqs = [record.seq for record in await agent.changes(BATCH)]
    await full.check(BATCH, lambda: agent.confirm(seqs))
    await full.check(BATCH, lambda: agent.prune(BATCH))
    await full.check(LEASED, agent.stats)


async def test_what_is_asked_reads_what_it_gives(full: Full) -> None:
    agent = full.agent
    page = await agent.inventory("", BATCH)
    ids = [item.id for item in page]
    await full.check(BATCH, lambda: agent.inventory(ids[-1], BATCH))
    await full.check(BATCH, lambda: agent.find(ids))
    await full.check(BATCH, lambda: agent.jobs(ids[0], ids[-1], BATCH))
    await full.check(LEASED, lambda: agent.jobs("", "g", BATCH, leased_only=True))
    await full.check(BATCH, lambda: agent.peek(JobFilter(), None, BATCH))
    await full.check(BATCH, lambda: agent.revoke([Revoke(job_id, 1, RevokeKind.CANCEL) for job_id in ids]))
    await full.check(BATCH, lambda: agent.withdraw(None, BATCH))
