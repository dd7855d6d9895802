"""The SQL master on SQLite, beyond the contract: bounded pages, sweeping, crashes, a full or locked file."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from jobmaster.contracts.entries import Placement
from jobmaster.contracts.values import JobFilter
from jobmaster.master.rules import ON_AGENTS
from jobmaster.master.sql.master import SqlMaster
from jobmaster.master.sql.pages import read_page
from jobmaster.model.errors import Refused
from jobmaster.model.job import Job
from jobmaster.model.policy import Labels
from jobmaster.model.states import JobState
from jobmaster.sqlite import open_database
from jobmaster.testing.masters.harness import held, record, run_of, sample
from tests.outbox_table import OUTBOX, create_outbox, fill_outbox
from tests.unit.master.conftest import sqlite_master


@pytest.mark.asyncio
async def test_a_page_reads_a_bounded_number_of_rows_and_says_how_far_it_came(master: SqlMaster) -> None:
    oldest = [held(labels=_labels(0)) for _ in range(3)]
    jobs = [sample(JobState.SUCCEEDED, labels=_labels(n)) for n in range(50)]
    newest = [held(labels=_labels(0)) for _ in range(3)]
    await master.apply("a", [record(job, seq) for seq, job in enumerate(jobs)])
    await master.insert([*oldest, *newest])
    found: list[Job] = []
    cursor, calls = None, 0
    while True:
        page = await master._read(
            lambda connection, cursor=cursor: read_page(  # type: ignore[misc]  # a bound default
                connection, master._tables, JobFilter(tag="rare"), cursor, 10, scanned=7
            )
        )
        found += page.jobs
        calls += 1
        cursor = page.cursor
        if cursor is None:
            break
    everything = [*(item.job for item in oldest), *jobs, *(item.job for item in newest)]
    assert found == [job for job in everything[::-1] if job.labels and b"rare" in job.labels]
    assert calls >= 7


def _labels(number: int) -> bytes | None:
    return Labels(tags=("rare",) if number % 20 == 0 else ("common",)).encode()


@pytest.mark.asyncio
async def test_the_sweep_deletes_what_the_history_has_outlived(master: SqlMaster) -> None:
    ended = sample(JobState.SUCCEEDED, epoch=2, version=5)
    alive = sample(JobState.QUEUED, epoch=2, version=1)
    await master.apply("a", [record(ended)])
    await master.copy("a", [alive])
    # What two sessions can leave behind where writers do not take turns.
    ghost = sample(JobState.RUNNING, id=ended.id, epoch=2, version=4)
    await master._write(lambda connection: master._rows.insert(connection, [Placement(ghost)]))
    assert (await master.page(JobFilter(states=frozenset(ON_AGENTS)), None, 5)).jobs == [alive]
    assert await master.get([ended.id]) == [ended]
    assert await master.sweep(10) == 1
    assert await master.sweep(10) == 0
    assert await master.get([ended.id, alive.id]) == [ended, alive]


MOVE = """
import asyncio, sys
from jobmaster.master import open_master
from jobmaster.testing.clock import ManualClock

async def main():
    master = open_master(sys.argv[1], cluster="test", clock=ManualClock())
    await master.open()
    while (await master.move("transport-1", sys.argv[2], 4)).moved:
        pass
    await master.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("failpoint", ["move.before_commit:crash@2", "move.after_commit:crash@2"])
def test_a_crash_around_the_commit_of_a_move_loses_and_doubles_nothing(
    tmp_path: Path, migrated: Path, failpoint: str
) -> None:
    path = Path(shutil.copyfile(migrated, tmp_path / "master.db"))
    jobs = [sample(JobState.SUCCEEDED) for _ in range(11)]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    create_outbox(connection)
    fill_outbox(connection, [record(job, seq, run=run_of(job)) for seq, job in enumerate(jobs, 1)])
    command = [sys.executable, "-c", MOVE, f"sqlite:///{path}", OUTBOX]
    crashed = subprocess.run(command, env=os.environ | {"JOBMASTER_FAILPOINTS": failpoint}, timeout=50, check=False)
    assert crashed.returncode == 137
    assert _moved(connection, "history") == (4 if "before" in failpoint else 8)
    subprocess.run(command, timeout=50, check=True)
    assert _moved(connection, "history") == _moved(connection, "run") == 11
    assert connection.execute(f"SELECT count(*) FROM {OUTBOX}").fetchone() == (0,)
    connection.close()


def _moved(connection: sqlite3.Connection, table: str) -> int:
    (name,) = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE ?", (f"jm_test%_{table}",)
    ).fetchone()
    count: int = connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
    return count


@pytest.mark.asyncio
async def test_a_full_database_refuses_and_goes_on_once_there_is_room(master: SqlMaster, tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "master.db"))
    pages = (await database.read(lambda connection: connection.execute("PRAGMA page_count").fetchone()))[0]
    await database.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone())
    large = [held(data=b'"' + b"x" * 100_000 + b'"')]
    with pytest.raises(Refused, match=r"master\.db: the disk is full, or PRAGMA max_page_count is reached"):
        await master.insert(large)
    with pytest.raises(Refused, match="full"):
        await master.apply("a", [record(sample(JobState.SUCCEEDED, data=large[0].job.data), seq) for seq in range(3)])
    assert await master.quarantined(5) == []
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 1073741823").fetchone())
    await master.insert(large)
    assert await master.get([large[0].job.id]) == [large[0].job]
    database.close()


@pytest.mark.asyncio
async def test_a_locked_database_refuses_by_name(tmp_path: Path, migrated: Path) -> None:
    path = Path(shutil.copyfile(migrated, tmp_path / "master.db"))
    database = open_database(str(path), busy_seconds=0.2)
    master = sqlite_master(path)
    await master.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    item = held()
    with pytest.raises(Refused, match=re.escape(f"{path}: it is locked by another process")):
        await master.insert([item])
    assert await master.get([item.job.id]) == [None]
    other.execute("ROLLBACK")
    await master.insert([item])
    assert await master.get([item.job.id]) == [item.job]
    other.close()
    await master.close()
    database.close()


@pytest.mark.asyncio
async def test_a_value_no_column_takes_refuses_the_call_and_writes_nothing(master: SqlMaster) -> None:
    good, bad = held(), held(due_us=2**63)
    with pytest.raises(Refused, match="too large"):
        await master.insert([good, bad])
    assert await master.get([good.job.id]) == [None]
