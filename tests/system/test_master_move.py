"""A master moves to another database: sealed, copied, counted, and gone on with after a crash at any step."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from jobmaster.contracts.clock import SystemClock
from jobmaster.contracts.entries import AgentEntry, AgentState, DefinitionEntry, Event
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import JobFilter
from jobmaster.introduction import WITH_MASTER, fingerprint_of
from jobmaster.master import open_master
from jobmaster.master_move import move_master, unseal_master
from jobmaster.model.errors import ConfigurationError, JobMasterError, MasterSealed, MasterUnavailable
from jobmaster.model.ids import new_id
from jobmaster.model.states import FailReason, JobState
from jobmaster.testing.masters.harness import held, planning, record, run_of, sample, schedule
from tests.sizes import SIZES

pytestmark = [pytest.mark.slow, pytest.mark.asyncio, pytest.mark.timeout(180)]

CLUSTER = "shop"
MANY = 1_234 if SIZES.name == "short" else 12_345


def store(url: str) -> MasterStore:
    return open_master(url, cluster=CLUSTER, clock=SystemClock())


@pytest.fixture(params=["sqlite-to-postgres", "postgres-to-sqlite", "mysql-to-postgres"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    file = f"sqlite:///{tmp_path / 'a' / 'master.db'}"
    (tmp_path / "a").mkdir()
    source, _, target = request.param.partition("-to-")
    made: dict[str, Callable[[], str]] = {
        "sqlite": lambda: file,
        "postgres": lambda: str(request.getfixturevalue("postgres_url")),
        "mysql": lambda: str(request.getfixturevalue("mysql_url")),
    }
    return made[source](), made[target]()


async def fill(url: str) -> dict[str, object]:
    """A bit of everything, and more than one batch of some; what the new master must tell."""
    master = store(url)
    await master.open()
    try:
        await master.define([DefinitionEntry(name="send-welcome", lane="mails", policy=b'{"timeout_us":1}')])
        await master.enter_agent(
            AgentEntry(name="standalone", kind="sqlite", fingerprint=WITH_MASTER, incarnation="a", high_water=7)
        )
        await master.turn_agent("standalone", AgentState.PAUSED, None, "ann")
        await master.note_quarantine("standalone", "it was set back")
        await master.record([Event(id=new_id(), kind="worker.joined", subject="wörker 'one'", who="here")])
        await master.save_schedule(schedule("every-minute"))
        await master.plan(planning(ahead_us=300_000_000, agents={"standalone": 1}, draws=("standalone",)))
        waiting = [held(id=new_id()) for _ in range(MANY)]
        await master.insert(waiting)
        ended = [
            sample(state, id=new_id(), reason=FailReason.EXHAUSTED if state is JobState.FAILED else None)
            for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
            for _ in range(20)
        ]
        await master.apply("standalone", [record(job, n, run=run_of(job)) for n, job in enumerate(ended, 1)])
        return await everything(master)
    finally:
        await master.close()


async def ran(command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    run = partial(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60)
    return await asyncio.to_thread(run)


async def everything(master: MasterStore) -> dict[str, object]:
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = await master.page(JobFilter(), cursor, 500)
        ids += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    jobs = await master.get(ids)
    runs = {job.id: await master.runs(job.id) for job in jobs if job is not None and job.terminal}
    agents = [replace(entry, fingerprint="") for entry in await master.agents()]
    return {
        "jobs": jobs,
        "runs": runs,
        "agents": agents,
        "definitions": await master.definitions(),
        "schedules": await master.schedules(),
        "occurrences": await master.occurrences("every-minute", None, 100),
        "events": await master.events(None, None, 100),
    }


async def test_everything_is_there_and_the_old_master_takes_no_write(urls: tuple[str, str]) -> None:
    source, target = urls
    before = await fill(source)
    done = await move_master(source, target, CLUSTER, who="ann")
    assert not done.already
    assert (done.rows["schedule"], done.rows["history"]) == (1, 60)
    new, old = store(target), store(source)
    await new.open()
    report = await old.open()
    try:
        assert await everything(new) == before
        # The agent that lived in the old master's file has that file for its own now.
        (entry,) = await new.agents()
        assert entry.fingerprint == fingerprint_of("sqlite", str(old.database_key))
        assert any("this master is sealed" in finding for finding in report.findings)
        assert await everything(old) == before
        for write in (
            old.insert([held(id=new_id())]),
            old.apply("standalone", [record(sample(JobState.SUCCEEDED, id=new_id()), 99)]),
            old.save_schedule(schedule("another")),
            old.turn_agent("standalone", AgentState.OPEN, None, "bob"),
            old.note_quarantine("standalone", "why"),
            old.define([DefinitionEntry(name="other")]),
            old.delete([next(iter(before["runs"]))]),  # type: ignore[call-overload]
        ):
            with pytest.raises(MasterSealed, match="it is moved to"):
                await write
        assert await old.quarantined(10) == []
        # The new one takes them.
        await new.insert([held(id=new_id())])
    finally:
        await new.close()
        await old.close()
    again = await move_master(source, target, CLUSTER)
    assert again.already


STEPS = ["relocation.sealing", "relocation.sealed", "relocation.batch", "relocation.copied", "relocation.verified"]


@pytest.mark.parametrize("step", STEPS if SIZES.name == "full" else [STEPS[0], STEPS[2]])
async def test_a_crash_at_any_step_is_repaired_by_repeating(tmp_path: Path, postgres_url: str, step: str) -> None:
    source = f"sqlite:///{tmp_path / 'master.db'}"
    before = await fill(source)
    command = [sys.executable, "-m", "jobmaster", "master", "move", source, postgres_url, "--yes"]
    crash = f"{step}:crash@{4 if step == STEPS[2] else 1}"
    environment = {**os.environ, "JOBMASTER_FAILPOINTS": crash}
    crashed = await ran(command, environment)
    assert crashed.returncode == 137, crashed
    if step not in STEPS[:2]:
        # Nobody can use it before it is complete.
        unfinished = store(postgres_url)
        with pytest.raises(MasterUnavailable, match="run the same `jobmaster master move` again"):
            await unfinished.open()
    done = await ran(command, dict(os.environ))
    assert (done.returncode, "is open; start every process" in done.stdout) == (0, True), done
    new = store(postgres_url)
    await new.open()
    try:
        assert await everything(new) == before
    finally:
        await new.close()


async def test_what_can_not_be_moved_is_refused(tmp_path: Path, postgres_url: str) -> None:
    source, other = f"sqlite:///{tmp_path / 'one.db'}", f"sqlite:///{tmp_path / 'two.db'}"
    await fill(source)
    await fill(other)
    with pytest.raises(JobMasterError, match="holds a master of its own already"):
        await move_master(source, other, CLUSTER)
    with pytest.raises(ConfigurationError, match="the same database"):
        await move_master(source, source, CLUSTER)
    with pytest.raises(ConfigurationError, match="in memory"):
        await move_master("memory://x", postgres_url, CLUSTER)
    # Nothing was sealed for it.
    master = store(source)
    await master.open()
    await master.insert([held(id=new_id())])
    await master.close()
    await move_master(source, postgres_url, CLUSTER)
    third = f"sqlite:///{tmp_path / 'three.db'}"
    with pytest.raises(JobMasterError, match="is sealed for"):
        await move_master(source, third, CLUSTER)
    await unseal_master(source, CLUSTER)
    await master.open()
    await master.insert([held(id=new_id())])
    await master.close()
