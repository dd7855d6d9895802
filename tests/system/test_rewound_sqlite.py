"""An agent's file is replaced by an older copy, or emptied, while the cluster runs and while it is stopped.

What has finished is not run again, what the master knows to be waiting is, and nobody works with the store before that
is sorted out.
"""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobmaster import Cluster
from jobmaster.contracts.namespace import table_prefix
from jobmaster.model.states import JobState
from tests.support import eventually
from tests.system.rewound import AGENT, CLUSTER, RECONCILING, begin, known, prepared, runs, sorted_out

pytestmark = pytest.mark.slow

CRASHED = 137
"""How a process ends at a failpoint."""
TABLES = ("job", "outbox", "tombstone", "meta", "lane", "worker", "signal")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return begin(f"sqlite:///{tmp_path}/master.db", f"sqlite:///{tmp_path}/agent.db")


def copy(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "agent.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(folder / "copy.db"),))


def older_copy(folder: Path) -> None:
    other = shutil.copyfile(folder / "copy.db", folder / "new.db")
    os.replace(other, folder / "agent.db")


def empty_file(folder: Path) -> None:
    (folder / "new.db").touch(0o600)
    os.replace(folder / "new.db", folder / "agent.db")


def no_rows(folder: Path, tables: tuple[str, ...] = TABLES) -> None:
    with contextlib.closing(sqlite3.connect(folder / "agent.db", timeout=10)) as connection, connection:
        for table in tables:
            connection.execute(f"DELETE FROM {table_prefix(CLUSTER, AGENT)}{table}")


def no_jobs(folder: Path) -> None:
    no_rows(folder, ("job",))


HARM = pytest.mark.parametrize("harm", [older_copy, empty_file, no_rows, no_jobs])


@pytest.mark.asyncio
@HARM
async def test_while_it_runs(cluster: Cluster, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    async with prepared(cluster, lambda: asyncio.to_thread(copy, tmp_path)) as before:
        await asyncio.to_thread(harm, tmp_path)
        await sorted_out(before.runtime, before)


@pytest.mark.asyncio
@HARM
async def test_while_it_is_stopped(cluster: Cluster, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    async with prepared(cluster, lambda: asyncio.to_thread(copy, tmp_path)) as before:
        pass
    harm(tmp_path)
    async with cluster.run() as runtime:
        await sorted_out(runtime, before)


RUN = """
import asyncio, sys
from tests.system.rewound import begin
async def main():
    async with begin(*sys.argv[1:]).run() as runtime:
        await runtime.stop_requested.wait()
asyncio.run(main())
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("point", RECONCILING)
async def test_whoever_dies_while_reconciling_is_followed_by_another(
    cluster: Cluster, tmp_path: Path, point: str
) -> None:
    async with prepared(cluster, lambda: asyncio.to_thread(copy, tmp_path)) as before:
        pass
    older_copy(tmp_path)
    died = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", RUN, f"sqlite:///{tmp_path}/master.db", f"sqlite:///{tmp_path}/agent.db"],
        env={**os.environ, "JOBMASTER_FAILPOINTS": f"{point}:crash"},
        timeout=30,
    )
    assert died.returncode == CRASHED
    async with cluster.run() as runtime:
        await sorted_out(runtime, before)


@pytest.mark.asyncio
async def test_several_reconcile_at_once(cluster: Cluster, tmp_path: Path) -> None:
    async with prepared(cluster, lambda: asyncio.to_thread(copy, tmp_path)) as before:
        pass
    older_copy(tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        runtimes = await asyncio.gather(*(stack.enter_async_context(cluster.run()) for _ in range(3)))
        await eventually(lambda: known(runtimes[0], before.waiting, JobState.SUCCEEDED), within=30)
        assert dict(runs) == dict.fromkeys("abcdef", 1)
