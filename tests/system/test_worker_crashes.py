"""One job that takes its process down, among a thousand that do not: it alone fails, however often that happens."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobmaster import ClusterBuilder
from jobmaster.model.states import FailReason, JobState

ROOT = Path(__file__).parents[2]
JOBS = 1_000
MOST_CRASHES = 6


def run(path: Path, what: str) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.crasher", str(path), str(JOBS), what],
        cwd=ROOT,
        timeout=50,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode in {0, 9}, done.stderr
    return done.returncode


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.asyncio
async def test_a_job_that_ends_its_process_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    assert run(path, "enqueue") == 0

    crashes = 0
    while run(path, "run") == 9:
        crashes += 1
        assert crashes <= MOST_CRASHES

    config = ClusterBuilder("crashes")
    config.use_sqlite_for_master(path)
    config.add_agent("standalone").use_sqlite_for_agent(path)
    async with config.build().connect() as scheduler:
        counts = await scheduler.counts()
        failed = (await scheduler.list(state=JobState.FAILED)).jobs
        # Once among all the others, which makes it suspect, then alone until it is given up.
        assert crashes == 4
        assert counts.total(JobState.SUCCEEDED) == JOBS - 1
        assert [(job.reason, job.data) for job in failed] == [(FailReason.CRASHED, {"number": 500})]
