"""How Postgres goes about the master's statements when its tables are large: down an index, a batch at a time.

Looked at as they run, in the generic form that a session settles on, with statistics that are fresh, stale (from a time
when nothing was held) and missing, and with plans that were made while all tables were empty.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from jobmaster.contracts.entries import Dispatch, Routes
from jobmaster.contracts.values import JobFilter
from jobmaster.master import open_master
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.pages import SCANNED
from jobmaster.master.sql.server_engine import ServerEngine
from jobmaster.model.states import JobState
from jobmaster.testing.clock import ManualClock
from jobmaster.testing.masters.harness import held, planning, record, run_of, sample, schedule
from jobmaster.testing.masters.schedules import saved
from tests.history_parts import divide
from tests.outbox_table import OUTBOX, server_outbox
from tests.servers import Postgres, Unavailable, create_database, drop_database
from tests.servers.fixtures import missing
from tests.sizes import SIZES
from tests.system.master_plans import EXPLAINING, Log, fill, job_id, quietly

ROWS = max(SIZES.plan_rows, 50_000)
BATCH = 200
PARTS = 12
"""Of history and runs, beside the one for ids that tell no time."""
ENOUGH = 3 * BATCH
"""Rows that one node may read, or sort, for a batch."""
AGENT = "transport-1"
ROUNDS = 7
"""From the sixth on, a session uses the generic plan."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if SIZES.name == "full" else 240)]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    started = Postgres(settings=EXPLAINING)
    try:
        started.start()
    except Unavailable as error:
        missing(str(error))
    yield started
    started.remove()


@asynccontextmanager
async def database(server: Postgres, state: str) -> AsyncIterator[SqlMaster]:
    """A filled one, whose statistics are in that state."""
    url = create_database(server.url)
    master = open_master(url, cluster="test", clock=ManualClock())
    assert isinstance(master, SqlMaster)
    await master.open()
    try:
        await prepare(master, url, state)
        yield master
    finally:
        await master.close()
        drop_database(server.url, url)


async def prepare(master: SqlMaster, url: str, state: str) -> None:
    divide(url, master._tables.prefix, [job_id("h", ROWS * number // PARTS) for number in range(1, PARTS)])
    engine = ServerEngine(url)
    await engine.open()
    await engine.write(server_outbox(OUTBOX).create)
    await engine.close()
    if state == "made early":
        for round_number in range(ROUNDS):
            for verb in VERBS.values():
                await verb(master, round_number)
    fill(url, master._tables, ROWS)
    if state == "fresh":
        quietly(url, "ANALYZE")
    elif state == "stale":
        job = master._tables.job.name
        others = "state = 'queued', dispatch_until_us = NULL"
        quietly(url, f"UPDATE {job} SET {others}", "ANALYZE", f"UPDATE {job} SET state = 'held' WHERE due_us % 100 > 1")


def some(of: str, round_number: int, count: int = BATCH) -> list[str]:
    start = 1_000 + round_number * count
    return [job_id(of, number) for number in range(start, start + count)]


async def _hand_off(master: SqlMaster, n: int) -> None:
    found = await master.hand_off(10**15, BATCH, Routes(agents={AGENT: 10**15}, draws=(AGENT,)))
    await master.dispatched([(item.job.id, item.job.epoch) for item in found.placements])


async def _dispatch(master: SqlMaster, n: int) -> None:
    due = await master.due(10**15, BATCH)
    placed = await master.dispatch([Dispatch(job.id, job.version, AGENT, 10**15) for job in due])
    await master.dispatched([(item.job.id, item.job.epoch) for item in placed if item is not None])


async def _apply(master: SqlMaster, n: int) -> None:
    jobs = [sample(JobState.SUCCEEDED) for _ in range(BATCH)]
    jobs += [sample(JobState.SUCCEEDED, id=known, epoch=3) for known in some("j", 30 + n, 20)]
    await master.apply(AGENT, [record(job, seq, run=run_of(job)) for seq, job in enumerate(jobs)])


async def _plan(master: SqlMaster, n: int) -> None:
    await saved(master, schedule(f"key-{n}"))
    await master.plan(planning())
    await master.occurrences(f"key-{n}", None, 10)


def page(**where: object) -> Callable[[SqlMaster, int], Awaitable[object]]:
    async def turn(master: SqlMaster, n: int) -> None:
        found = await master.page(JobFilter(**where), None, 50)  # type: ignore[arg-type]  # any of the fields
        if found.cursor is not None:
            await master.page(JobFilter(**where), found.cursor, 50)  # type: ignore[arg-type]

    return turn


VERBS: dict[str, Callable[[SqlMaster, int], Awaitable[object]]] = {
    "insert": lambda master, n: master.insert([held() for _ in range(BATCH)]),
    "hand-off": _hand_off,
    "dispatch": _dispatch,
    "overdue": lambda master, n: master.overdue(AGENT, BATCH),
    "apply": _apply,
    "copy": lambda master, n: master.copy(AGENT, [sample(JobState.QUEUED) for _ in range(BATCH)]),
    "move": lambda master, n: master.move(AGENT, OUTBOX, BATCH),
    "get": lambda master, n: master.get([*some("h", n, 50), *some("j", n, 50)]),
    "runs": lambda master, n: master.runs(job_id("h", 77)),
    "counts": lambda master, n: master.counts(BATCH),
    "cancel": lambda master, n: master.cancel(some("j", 50 + n, 10)),
    "redrive": lambda master, n: master.redrive([job_id("h", 100 * n + 100)], 10**15, fresh=True),
    "delete": lambda master, n: master.delete(some("h", 60 + n, 10)),
    "prune": lambda master, n: master.prune(10 + 10 * n, BATCH),
    "plan": _plan,
    "workers": lambda master, n: master.workers(),
    "page of all": page(),
    "page of a handler": page(handler="handler-3"),
    "page of failed": page(states=frozenset({JobState.FAILED})),
    "page of held in a lane": page(states=frozenset({JobState.HELD}), lane="lane-2"),
    "page of a lane": page(lane="lane-2"),
    "page that finds nothing": page(agent="nobody"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("state", ["made early", "missing", "fresh", "stale"])
async def test_every_statement_reads_a_batch_and_no_table(server: Postgres, state: str) -> None:
    log = Log(server)
    async with database(server, state) as master:
        tables = master._tables
        big = {tables.job.name, tables.history.name, tables.run.name, OUTBOX}
        log.look()
        seen = 0
        faults = []
        for name, verb in VERBS.items():
            for round_number in range(ROUNDS, 2 * ROUNDS):
                await verb(master, round_number)
            allowed = SCANNED + BATCH if name.startswith("page") else ENOUGH
            for done in log.look():
                seen += 1
                faults += [f"{name}: {fault}" for fault in done.faults(big, allowed)]
        assert seen > 200
        assert "\n".join(sorted(set(faults))) == ""


@pytest.mark.asyncio
async def test_a_statement_that_reads_a_table_is_seen(server: Postgres) -> None:
    async with database(server, "fresh") as master:
        log, history = Log(server), master._tables.history
        log.look()
        await master._engine.read(
            lambda connection: connection.exec_driver_sql(
                f"SELECT handler, count(*) FROM {history.name} WHERE error IS NULL GROUP BY handler ORDER BY 2"
            ).all()
        )
        (done,) = log.look()
        assert done.faults({history.name}, ENOUGH) != []
