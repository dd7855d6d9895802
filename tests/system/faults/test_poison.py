"""One job that kills its process among many that do not: it alone is given up, and its neighbours are not suspected of
it for good."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobmaster import ClusterBuilder, FailReason, JobState
from tests.sizes import SIZES

ROOT = Path(__file__).resolve().parents[3]
MOST_DEATHS = 8
SECONDS = 300


def run_once(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.asyncio
@pytest.mark.timeout(2 * SECONDS)
async def test_one_poison_job_is_given_up_alone(tmp_path: Path) -> None:
    file = tmp_path / "poison.db"
    program = Path(__file__).with_name("poison.py")
    command = [sys.executable, str(program), str(file), str(SIZES.poison_jobs)]
    deaths = 0
    while True:
        done = await asyncio.to_thread(run_once, command)
        if done.returncode == 0:
            break
        assert done.returncode == 1, done.stderr
        assert not done.stderr, done.stderr
        deaths += 1
        assert deaths <= MOST_DEATHS, "the poison job was not given up"

    config = ClusterBuilder("poison").use_master(f"sqlite:///{file}")
    async with config.build().connect() as scheduler:
        counts = await scheduler.counts()
        assert counts.total(JobState.SUCCEEDED) == SIZES.poison_jobs - 1
        assert counts.total(JobState.FAILED) == 1
        (failed,) = (await scheduler.list(state=JobState.FAILED)).jobs
        assert failed.reason is FailReason.CRASHED
        assert failed.data == {"poison": True}
        assert failed.crashes == 3
    assert deaths == 4  # once as nobody's fault in particular, three times on record
