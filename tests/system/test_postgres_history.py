"""A Postgres agent in the master's own database writes ends of jobs into its history with the settle, and nothing else
there: what the outbox and the master's move would have made of them, under the same rules, once, or not at all."""

import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from msgspec import structs

from jobmaster.contracts.values import RecordKind, SettleAnswer
from jobmaster.master import open_master
from jobmaster.master.sql.master import SqlMaster
from jobmaster.model.job import Job
from jobmaster.model.outcome import RunOutcome
from jobmaster.model.states import JobState
from jobmaster.testing.agents.cases import claim, put_new, settlement
from jobmaster.testing.clock import ManualClock
from jobmaster_agents.postgres import PostgresAgent

pytestmark = pytest.mark.asyncio

AGENT = "transport-1"
AWAY = "jm_away"
"""What a table is called while it is not there."""


class Shared:
    """A master and an agent on one database, and a look behind them."""

    def __init__(self, url: str) -> None:
        master = open_master(url, cluster="test", clock=ManualClock())
        assert isinstance(master, SqlMaster)
        assert master.history_tables is not None
        self.master = master
        self.tables = master.history_tables
        self.agent = PostgresAgent(url, cluster="test", name=AGENT)
        self.agent.write_history(self.tables)
        self.db: Any = None

    async def records(self) -> int:
        return len(await self.agent.changes(100))

    async def rows(self, table: str) -> list[tuple[Any, ...]]:
        """With the transaction that wrote each: a row written again is another one."""
        return [tuple(row) for row in await self.db.fetch(f"SELECT xmin::text, * FROM {table} ORDER BY 1, 2")]

    async def master_says(self, job: Job) -> Job:
        [found] = await self.master.get([job.id])
        assert found is not None
        return found

    async def list_live(self, job: Job, **fields: Any) -> None:
        """The master has a copy of it."""
        assert await self.master.copy(AGENT, [structs.replace(job, **fields)]) == 1


@pytest_asyncio.fixture
async def shared(postgres_url: str) -> AsyncIterator[Shared]:
    both = Shared(postgres_url)
    await both.master.open()
    await both.agent.open()
    both.db = await asyncpg.connect(postgres_url)
    yield both
    await both.db.close()
    await both.agent.close()
    await both.master.close()


async def leased(shared: Shared, count: int = 1, **fields: Any) -> list[Job]:
    await put_new(shared.agent, count, **fields)
    return sorted(await claim(shared.agent, count), key=lambda job: job.id)


@pytest.mark.parametrize(
    "outcome",
    [
        {"result": b'{"sent":true}'},
        {"outcome": RunOutcome.FAILED, "error": "SoldOut: no more", "progress": 40, "progress_note": "half"},
        {"outcome": RunOutcome.FAILED, "reason": "rejected", "detail": b"{}"},
    ],
)
async def test_an_end_is_what_outbox_and_move_would_have_made_of_it(shared: Shared, outcome: dict[str, Any]) -> None:
    direct, moved = await leased(shared, 2)
    assert await shared.agent.settle([settlement(direct, **outcome)]) == [SettleAnswer.ACCEPTED]
    assert await shared.records() == 0
    by_outbox = PostgresAgent(shared.agent._url, cluster="test", name=AGENT)
    await by_outbox.open()
    assert await by_outbox.settle([settlement(moved, **outcome)]) == [SettleAnswer.ACCEPTED]
    await by_outbox.close()
    assert await shared.records() == 1
    await shared.master.move(AGENT, shared.agent.traits.shared_outbox or "", 10)
    one, other = await shared.master_says(direct), await shared.master_says(moved)
    assert one.terminal
    times = dict.fromkeys(("finished_us", "first_started_us"), 0)
    assert structs.replace(one, **times) == structs.replace(other, id=one.id, **times)
    [run], [other_run] = await shared.master.runs(direct.id), await shared.master.runs(moved.id)
    assert run == structs.replace(other_run, job_id=direct.id)


async def test_what_was_settled_is_settled_once(shared: Shared) -> None:
    [job] = await leased(shared)
    outcome = settlement(job)
    assert await shared.agent.settle([outcome]) == [SettleAnswer.ACCEPTED]
    history, runs = await shared.rows(shared.tables.history), await shared.rows(shared.tables.run)
    assert (len(history), len(runs)) == (1, 1)
    assert await shared.agent.settle([outcome]) == [SettleAnswer.ACCEPTED]
    assert await shared.agent.settle([settlement(job, RunOutcome.FAILED)]) == [SettleAnswer.STALE]
    assert await shared.rows(shared.tables.history) == history
    assert await shared.rows(shared.tables.run) == runs
    assert await shared.records() == 0


async def test_a_stale_settle_writes_nothing(shared: Shared) -> None:
    [job] = await leased(shared)
    await shared.agent.reap(10, frozenset({"w1"}))
    [again] = await claim(shared.agent, 1, worker="w2")
    assert await shared.agent.settle([settlement(job)]) == [SettleAnswer.STALE]
    assert await shared.rows(shared.tables.history) == []
    assert await shared.rows(shared.tables.run) == []
    assert await shared.agent.settle([settlement(again)]) == [SettleAnswer.ACCEPTED]
    assert (await shared.master_says(job)).version == again.version + 1


async def test_what_others_have_to_act_on_goes_through_the_outbox(shared: Shared) -> None:
    [plain, effects] = [(await leased(shared))[0], (await leased(shared, effects=True))[0]]
    await shared.agent.settle([settlement(plain), settlement(effects)])
    [record] = await shared.agent.changes(10)
    assert (record.kind, record.job is not None and record.job.id) == (RecordKind.EFFECT, effects.id)
    assert await shared.master.get([effects.id]) == [None]
    assert [row[1] for row in await shared.db.fetch(f"SELECT 1, id::text FROM {shared.tables.history}")] == [plain.id]
    [retried] = await leased(shared)
    await shared.agent.settle([settlement(retried, RunOutcome.RETRY_AT, after_us=1_000_000)])
    assert await shared.records() == 2


async def test_the_masters_rows_keep_its_rules(shared: Shared) -> None:
    older, newer, same, ended = await leased(shared, 4)
    await shared.list_live(older, version=older.version)
    await shared.list_live(newer, epoch=newer.epoch + 1, version=1)
    await shared.list_live(same, version=same.version + 1)
    later = structs.replace(ended, state=JobState.CANCELLED, epoch=2, finished_us=1, worker=None)
    assert await shared.master.copy(AGENT, [later]) == 1
    answers = await shared.agent.settle([settlement(job) for job in (older, newer, same, ended)])
    assert answers == [SettleAnswer.ACCEPTED] * 4
    live = {row[0] for row in await shared.db.fetch(f"SELECT id::text FROM {shared.tables.job}")}
    assert live == {newer.id, same.id}
    written = {row[0] for row in await shared.db.fetch(f"SELECT id::text FROM {shared.tables.history}")}
    assert written == {older.id, ended.id}
    assert (await shared.master_says(older)).state is JobState.SUCCEEDED
    assert (await shared.master_says(ended)).state is JobState.CANCELLED
    for job in (older, newer, same, ended):
        assert [run.token for run in await shared.master.runs(job.id)] == [job.token]


async def test_a_job_that_ended_here_before_ends_again(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redriven one: its tombstone is there, so the batch can't be written as that of new jobs is."""
    [before] = await leased(shared)
    await shared.agent.settle([settlement(before, RunOutcome.FAILED)])
    [fresh, again] = await leased(shared), await leased(shared, id=before.id, epoch=2)
    answers = await shared.agent.settle([settlement(fresh[0]), settlement(again[0])])
    assert answers == [SettleAnswer.ACCEPTED] * 2
    assert await shared.records() == 0
    assert (await shared.master_says(again[0])).epoch == 2
    assert [run.token for run in await shared.master.runs(before.id)] == [before.token, again[0].token]
    settling = shared.agent.verbs.settling
    assert settling._direct is not None
    assert settling._careful_until > 0
    # From then on, for a while, no batch has to fail first.
    asked: list[bool] = []
    of = settling._direct.of
    monkeypatch.setattr(settling, "_careful_until", time.monotonic() + 60)

    def noted(*, bare: bool, plain: bool) -> str:
        asked.append(plain)
        return of(bare=bare, plain=plain)

    monkeypatch.setattr(settling._direct, "of", noted)
    [third] = await leased(shared)
    assert await shared.agent.settle([settlement(third)]) == [SettleAnswer.ACCEPTED]
    assert asked == [False]


async def test_what_the_history_refuses_is_settled_all_the_same(shared: Shared) -> None:
    [good], [bad] = await leased(shared), await leased(shared, labels=b"bad")
    await shared.db.execute(f"ALTER TABLE {shared.tables.history} ADD CHECK (labels IS NULL)")
    assert await shared.agent.settle([settlement(good), settlement(bad)]) == [SettleAnswer.ACCEPTED] * 2
    assert await shared.rows(shared.tables.run) == [], "half of the statement was kept"
    assert await shared.records() == 2
    await shared.master.move(AGENT, shared.agent.traits.shared_outbox or "", 10)
    assert [entry.agent for entry in await shared.master.quarantined(10)] == [AGENT]
    assert (await shared.master_says(good)).state is JobState.SUCCEEDED
    [next_one] = await leased(shared)
    await shared.agent.settle([settlement(next_one)])
    assert await shared.records() == 0, "one bad row has turned the short way off"


async def test_a_history_that_is_not_to_be_had_holds_up_nothing(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = await leased(shared, 3)
    await shared.db.execute(f"ALTER TABLE {shared.tables.history} RENAME TO {AWAY}")
    assert await shared.agent.settle([settlement(first)]) == [SettleAnswer.ACCEPTED]
    assert await shared.records() == 1
    await shared.db.execute(f"ALTER TABLE {AWAY} RENAME TO {shared.tables.history.rpartition('.')[2]}")
    assert await shared.agent.settle([settlement(second)]) == [SettleAnswer.ACCEPTED]
    assert await shared.records() == 2, "it was tried again at once, though what is wrong may last"
    monkeypatch.setattr("jobmaster_agents.postgres.settling.DIRECT_AGAIN_SECONDS", 0.0)
    shared.agent.verbs.settling._direct_after = 0.0
    assert await shared.agent.settle([settlement(third)]) == [SettleAnswer.ACCEPTED]
    assert await shared.records() == 2
    await shared.master.move(AGENT, shared.agent.traits.shared_outbox or "", 10)
    for job in (first, second, third):
        assert (await shared.master_says(job)).state is JobState.SUCCEEDED


async def test_a_lock_on_the_history_holds_up_one_settle_for_a_moment(shared: Shared) -> None:
    first, second, third = await leased(shared, 3)
    settling = shared.agent.verbs.settling
    async with shared.db.transaction():
        await shared.db.execute(f"LOCK TABLE {shared.tables.history} IN SHARE MODE")
        began = time.monotonic()
        assert await shared.agent.settle([settlement(first)]) == [SettleAnswer.ACCEPTED]
        assert time.monotonic() - began < 2.9, "it waited as long as for a lock of its own tables"
        settling._direct_after = 0.0
        assert not await settling._may_write_history(), "the next one would wait as well"
        assert await shared.agent.settle([settlement(second)]) == [SettleAnswer.ACCEPTED]
        assert len(await shared.agent.changes(10)) == 2
    settling._direct_after = 0.0
    assert await shared.agent.settle([settlement(third)]) == [SettleAnswer.ACCEPTED]
    assert len(await shared.agent.changes(10)) == 2, "the history was not written though it could be"


async def test_a_rolled_back_settle_leaves_job_and_history_as_they_were(shared: Shared) -> None:
    [job] = await leased(shared)
    settling = shared.agent.verbs.settling
    assert settling._direct is not None
    transaction = shared.db.transaction()
    await transaction.start()
    text = settling._direct.of(bare=True, plain=True)
    found = await shared.db.fetch(text, *settling._values([settlement(job)], True))
    assert [row[0] for row in found] == [job.id]
    await transaction.rollback()
    assert await shared.rows(shared.tables.history) == await shared.rows(shared.tables.run) == []
    assert await shared.agent.settle([settlement(job)]) == [SettleAnswer.ACCEPTED]
    assert (await shared.master_says(job)).state is JobState.SUCCEEDED
