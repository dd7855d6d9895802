"""A MySQL agent in the master's own database writes ends of jobs into its history with the settle, and nothing else
there: what the outbox and the master's move would have made of them, under the same rules, once, or not at all."""

from collections.abc import AsyncIterator
from typing import Any

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
from jobmaster_agents.mysql import MysqlAgent
from tests.contract.mysql_store import connect

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
        self.agent = MysqlAgent(url, cluster="test", name=AGENT)
        self.agent.write_history(self.tables)
        self.db = connect(url)

    async def records(self) -> int:
        return len(await self.agent.changes(100))

    async def rows(self, table: str) -> list[tuple[Any, ...]]:
        return self.ask(f"SELECT * FROM {table} ORDER BY 1, 2")

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self.db.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def ids(self, table: str) -> set[str]:
        return {row[0] for row in self.ask(f"SELECT id FROM {table}")}

    async def master_says(self, job: Job) -> Job:
        [found] = await self.master.get([job.id])
        assert found is not None
        return found

    async def list_live(self, job: Job, **fields: Any) -> None:
        """The master has a copy of it."""
        assert await self.master.copy(AGENT, [structs.replace(job, **fields)]) == 1


@pytest_asyncio.fixture
async def shared(mysql_url: str) -> AsyncIterator[Shared]:
    both = Shared(mysql_url)
    await both.master.open()
    await both.agent.open()
    yield both
    both.db.close()
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
    by_outbox = MysqlAgent(shared.agent._url, cluster="test", name=AGENT)
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
    [_, record] = sorted(await shared.agent.changes(10), key=lambda record: record.kind == RecordKind.EFFECT)
    assert (record.kind, record.job is not None and record.job.id) == (RecordKind.EFFECT, effects.id)
    assert await shared.master.get([effects.id]) == [None]
    # In one batch they went together; by itself the other one goes straight.
    await shared.master.move(AGENT, shared.agent.traits.shared_outbox or "", 10)
    assert shared.ids(shared.tables.history) == {plain.id}
    [straight] = await leased(shared)
    await shared.agent.settle([settlement(straight)])
    assert shared.ids(shared.tables.history) == {plain.id, straight.id}
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
    # What the master knows already is left to its own move.
    assert await shared.records() == 4
    await shared.master.move(AGENT, shared.agent.traits.shared_outbox or "", 10)
    assert shared.ids(shared.tables.job) == {newer.id, same.id}
    assert shared.ids(shared.tables.history) == {older.id, ended.id}
    assert (await shared.master_says(older)).state is JobState.SUCCEEDED
    assert (await shared.master_says(ended)).state is JobState.CANCELLED
    for job in (older, newer, same, ended):
        assert [run.token for run in await shared.master.runs(job.id)] == [job.token]


async def test_what_the_history_refuses_is_settled_all_the_same(shared: Shared) -> None:
    [good], [bad] = await leased(shared), await leased(shared, labels=b"bad")
    shared.ask(f"ALTER TABLE {shared.tables.history} ADD CHECK (labels IS NULL)")
    assert await shared.agent.settle([settlement(good), settlement(bad)]) == [SettleAnswer.ACCEPTED] * 2
    assert await shared.rows(shared.tables.run) == [], "half of the batch was kept"
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
    shared.ask(f"ALTER TABLE {shared.tables.history} RENAME TO {AWAY}")
    assert await shared.agent.settle([settlement(first)]) == [SettleAnswer.ACCEPTED]
    assert await shared.records() == 1
    shared.ask(f"ALTER TABLE {AWAY} RENAME TO {shared.tables.history}")
    assert await shared.agent.settle([settlement(second)]) == [SettleAnswer.ACCEPTED]
    assert await shared.records() == 2, "it was tried again at once, though what is wrong may last"
    monkeypatch.setattr("jobmaster_agents.mysql.settling.DIRECT_AGAIN_SECONDS", 0.0)
    shared.agent.verbs.settling._direct_after = 0.0
    assert await shared.agent.settle([settlement(third)]) == [SettleAnswer.ACCEPTED]
    assert await shared.records() == 2
    await shared.master.move(AGENT, shared.agent.traits.shared_outbox or "", 10)
    for job in (first, second, third):
        assert (await shared.master_says(job)).state is JobState.SUCCEEDED


async def test_one_stale_item_in_a_batch_holds_up_no_other(shared: Shared) -> None:
    jobs = await leased(shared, 5)
    lapsed = jobs[2]
    shared.ask(f"UPDATE {shared.agent._tables.job} SET claim_seq = claim_seq + 1 WHERE id = '{lapsed.id}'")
    answers = await shared.agent.settle([settlement(job) for job in jobs])
    assert answers == [SettleAnswer.STALE if job is lapsed else SettleAnswer.ACCEPTED for job in jobs]
    await shared.master.move(AGENT, shared.agent.traits.shared_outbox or "", 10)
    done = {job.id for job in jobs if job is not lapsed}
    assert shared.ids(shared.tables.history) == done
    assert {row[0] for row in shared.ask(f"SELECT job_id FROM {shared.tables.run}")} == done
    assert shared.ids(shared.agent._tables.tombstone) == done
    assert shared.ids(shared.agent._tables.job) == {lapsed.id}


class BrokenError(Exception):
    """Whatever may happen to a process."""


async def test_a_settle_that_is_not_committed_leaves_job_and_history_as_they_were(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        if name == "settle.before_commit":
            raise BrokenError

    [job] = await leased(shared)
    with monkeypatch.context() as patched:
        patched.setattr("jobmaster_agents.mysql.connection.failpoint", broken)
        with pytest.raises(BrokenError):
            await shared.agent.settle([settlement(job)])
    assert await shared.rows(shared.tables.history) == await shared.rows(shared.tables.run) == []
    assert shared.ids(shared.agent._tables.job) == {job.id}
    assert await shared.agent.settle([settlement(job)]) == [SettleAnswer.ACCEPTED]
    assert (await shared.master_says(job)).state is JobState.SUCCEEDED
