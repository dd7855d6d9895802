"""Handlers in processes of their own: what they see, how they end, and that nothing of them is left."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobmaster import Cluster, ClusterBuilder, FailReason, JobContext, JobHandler, JobState, Runtime
from jobmaster.model.errors import ConfigurationError
from jobmaster.worker.lease import Ending
from tests.support import eventually, recorded, until
from tests.system import process_handlers as handlers
from tests.system.process_handlers import Note

START_SECONDS = 60.0
"""A process imports the program first, on a machine that may have other things to do."""


def built(tmp_path: Path) -> Cluster:
    config = ClusterBuilder("processes").ignore_environment().add_handlers(handlers).log(level="error")
    return config.use_master(f"sqlite:///{tmp_path / 'jobs.db'}").build()


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with built(tmp_path).run() as runtime:
        yield runtime


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def noted(path: Path, what: str) -> list[list[str]]:
    if not path.exists():
        return []
    return [line.split() for line in path.read_text().splitlines() if line.startswith(what)]


async def begun(path: Path) -> int:
    """The pid of the process that runs the handler."""
    lines = await eventually(lambda: noted(path, "begins"), START_SECONDS, "the handler begins")
    return int(lines[0][1])


@pytest.mark.asyncio
async def test_a_handler_runs_in_another_process_with_its_job(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        scheduler = runtime.scheduler
        told = await scheduler.once_now(handlers.Tell, Note(text="ünï"))
        asked = await scheduler.once_now(handlers.Ask, Note())
        called = await scheduler.call(handlers.multiply, 21)
        result = await told.result(timeout=START_SECONDS)
        assert (result["text"], result["attempt"], result["id"]) == ("ünï", 1, told.id)
        pids = {os.getpid(), result["pid"], await asked.result(timeout=START_SECONDS)}
        assert len(pids) == 3
        assert await called.result(timeout=START_SECONDS) == 42
        job = await recorded(scheduler, told.id)
        assert (job.progress, job.progress_note) == (40, "half of it")
        assert job.runs[0].log == ("info: at work text=ünï",)
        assert not any(alive(pid) for pid in pids - {os.getpid()})


@pytest.mark.asyncio
async def test_how_it_ends_is_how_it_would_have_ended_here(tmp_path: Path) -> None:
    async with running(tmp_path) as runtime:
        scheduler = runtime.scheduler
        kinds = ("value", "sold", "reject", "snooze", "after", "exit", "kill", "thing", "system", "fine")
        jobs = {kind: await scheduler.once_now(handlers.End, Note(str(tmp_path / "snoozed"), kind)) for kind in kinds}
        ended = {}
        for kind, job in jobs.items():
            await asyncio.gather(job.result(timeout=START_SECONDS), return_exceptions=True)
            ended[kind] = await recorded(scheduler, job.id)
        for kind in ("snooze", "after", "fine"):
            assert (ended[kind].state, ended[kind].result) == (JobState.SUCCEEDED, kind)
        assert ended["snooze"].snoozes == 1
        reasons = {kind: ended[kind].reason for kind in ended}
        assert reasons["reject"] is reasons["thing"] is FailReason.REJECTED
        assert {reasons[kind] for kind in ("value", "sold", "exit", "kill", "system")} == {FailReason.EXHAUSTED}
        assert {kind: ended[kind].attempts for kind in ("value", "sold", "exit", "kill", "system")} == {
            "value": 2,
            "sold": 1,
            "exit": 2,
            "kill": 2,
            "system": 2,
        }
        assert ended["value"].error == "ValueError: no such number"
        assert "no such number" in (ended["value"].runs[0].traceback or "")
        assert "process_handlers.py" in (ended["value"].runs[0].traceback or "")
        assert ended["sold"].error == "tests.system.process_handlers.SoldOutError: the last one"
        assert "ended by SIGKILL" in (ended["kill"].error or "")
        assert "exit code 3" in (ended["exit"].error or "")


@pytest.mark.asyncio
@pytest.mark.parametrize("handler", [handlers.Spin, handlers.Wait])
async def test_a_cancel_is_raised_inside_whatever_it_does(tmp_path: Path, handler: type[JobHandler[Note]]) -> None:
    file = tmp_path / "notes"
    async with running(tmp_path) as runtime:
        job = await runtime.scheduler.once_now(handler, Note(str(file)))
        pid = await begun(file)
        assert (await job.cancel()).was_running
        await eventually(lambda: noted(file, "ends True"), START_SECONDS)
        await eventually(lambda: not alive(pid), START_SECONDS, "its process has ended")
        await eventually(lambda: not runtime.workers[0].card.busy, START_SECONDS, "its slot is free")
        assert (await job.refresh()).state is JobState.CANCELLED


@pytest.mark.asyncio
async def test_what_does_not_listen_is_killed_with_what_it_started(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    async with running(tmp_path) as runtime:
        job = await runtime.scheduler.once_now(handlers.Deaf, Note(str(file)))
        pid = await begun(file)
        child = int(noted(file, "child-")[0][0].removeprefix("child-"))
        await job.cancel()
        await eventually(lambda: not alive(pid) and not alive(child), START_SECONDS, "both are gone")
        await eventually(lambda: not runtime.workers[0].card.busy, START_SECONDS, "its slot is free")


@pytest.mark.asyncio
async def test_a_timeout_ends_it_and_the_run_says_so(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    async with running(tmp_path) as runtime:
        job = await runtime.scheduler.once_now(handlers.Spin, Note(str(file)), timeout=20.0)
        pid = await begun(file)
        # The rest of that time is of no interest here.
        (lease,) = runtime._crew._workers[runtime.workers[0].id]._executor.running
        runtime._crew._workers[runtime.workers[0].id]._executor.end(lease, Ending.TIMED_OUT)
        await asyncio.gather(job.result(timeout=START_SECONDS), return_exceptions=True)
        ended = await job.refresh()
        assert (ended.state, ended.reason) == (JobState.FAILED, FailReason.TIMED_OUT)
        assert not alive(pid)


@pytest.mark.asyncio
async def test_a_stop_interrupts_it_without_losing_an_attempt(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    async with running(tmp_path) as runtime:
        job = await runtime.scheduler.once_now(handlers.Spin, Note(str(file)))
        pid = await begun(file)
        await runtime.workers[0].stop(0)
        assert not alive(pid)
        after = await job.refresh()
        assert (after.state, after.attempts, after.interrupts) == (JobState.QUEUED, 0, 1)


PROGRAM = """
import asyncio, sys
from pathlib import Path
from tests.system.test_process_handlers import built
from tests.system import process_handlers as handlers

async def main():
    async with built(Path(sys.argv[1])).run() as runtime:
        await runtime.scheduler.once_now(handlers.Spin, handlers.Note(sys.argv[2]))
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_worker_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), str(file)]) as worker:
        try:
            lines = until(lambda: noted(file, "begins"), START_SECONDS)
            pid = int(lines[0][1])
            assert alive(pid)
        finally:
            worker.send_signal(signal.SIGKILL)
    until(lambda: not alive(pid), START_SECONDS, "its process has ended")


SCRIPT = """
import asyncio, os
from jobmaster import ClusterBuilder, Retry, job

@job(process=True, retry=Retry.never())
def where() -> list:
    return [os.getpid(), __name__]

async def main():
    config = ClusterBuilder("script").ignore_environment().use_master("sqlite:///script.db").add_handlers(where)
    async with config.log(level="error").build().run() as runtime:
        pid, name = await (await runtime.scheduler.call(where)).result(timeout=60)
        assert pid != os.getpid()
        print(name)

GUARD
    asyncio.run(main())
"""


@pytest.mark.parametrize("guarded", [True, False])
def test_handlers_of_the_program_itself_need_a_guard(tmp_path: Path, guarded: bool) -> None:
    guard = 'if __name__ == "__main__":' if guarded else "if True:"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("GUARD", guard).replace("result(timeout=60)", "result(timeout=20)"))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    if guarded:
        assert (done.returncode, done.stdout) == (0, "__jobmaster_main__\n"), done.stderr
    else:
        assert done.returncode != 0
        assert 'if __name__ == "__main__":' in done.stderr


def test_what_no_process_could_import_is_refused_when_the_cluster_is_built() -> None:
    class Inner(JobHandler):
        process = True

        def execute(self, job: JobContext) -> None: ...

    with pytest.raises(ConfigurationError, match="Inner: a process of its own could not import it"):
        ClusterBuilder("x").ignore_environment().add_handlers(Inner).build()
    config = ClusterBuilder("x").ignore_environment().add_handlers(handlers.Tell)
    with pytest.raises(ConfigurationError, match="handler_factory: a process of its own could not import it"):
        config.handler_factory(lambda kind: kind()).build()
