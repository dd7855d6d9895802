"""Worker processes as users start them: `jobmaster worker --app …`, each with its log."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobmaster import Cluster, ClusterBuilder, JobEvent
from tests.support import until
from tests.system.fleet.shop import HANDLERS, Mail, Pack, Stamp, Wait

ROOT = Path(__file__).resolve().parents[3]
APP = "tests.system.fleet.shop:cluster"
START_SECONDS = 60.0
STOP_SECONDS = 60.0


class WorkerProcess:
    """One `jobmaster worker`."""

    def __init__(self, fleet: "Fleet", number: int, arguments: Iterable[str], app: str = APP) -> None:
        self.output = fleet.folder / f"worker-{number}.log"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "jobmaster", "worker", "--app", app, *arguments],
                cwd=ROOT,
                env=fleet.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.output.read_text(errors="replace")

    def ready(self) -> "WorkerProcess":
        """Return once it has said that it runs."""

        def running() -> bool:
            assert self.process.poll() is None, self.log
            return "is running" in self.log

        until(running, within=START_SECONDS, what=f"worker {self.pid} runs")
        return self

    def send(self, number: signal.Signals) -> float:
        """Send a signal; the monotonic time of it."""
        self.process.send_signal(number)
        return time.monotonic()

    def kill(self) -> float:
        """`kill -9`, and it is gone when this returns; the monotonic time of it."""
        at = self.send(signal.SIGKILL)
        self.process.wait()
        return at

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(STOP_SECONDS)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.send_signal(signal.SIGCONT)
            self.process.wait()


class Fleet:
    """A cluster's stores and the processes that work on it."""

    def __init__(
        self,
        folder: Path,
        master: str,
        agents: Mapping[str, str],
        settings: Mapping[str, str] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder = folder
        self.master = master
        self.agents = dict(agents)
        self.options = {name: dict((options or {}).get(name, {})) for name in agents}
        self.settings = dict(settings or {})
        self.notes_file = folder / "notes"
        self.workers: list[WorkerProcess] = []

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("JOBMASTER_")}
        return {
            **clean,
            **{f"JOBMASTER_{name}": value for name, value in self.settings.items()},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "agents")]),
            "FLEET_MASTER": self.master,
            "FLEET_AGENTS": json.dumps({name: {"url": url, **self.options[name]} for name, url in self.agents.items()}),
            "FLEET_LOG": str(self.notes_file),
        }

    def cluster(self, on_succeeded: Callable[[JobEvent], Awaitable[None]] | None = None) -> Cluster:
        """The same cluster for this process, which runs no worker unless it adds one."""
        config = (
            ClusterBuilder("fleet")
            .ignore_environment()
            .add_handlers(Pack, Wait, Stamp, Mail, *HANDLERS)
            .use_master(self.master)
        )
        for name, url in self.agents.items():
            config.add_agent(name).use_agent(url, **self.options[name])
        for name, value in self.settings.items():
            table, _, key = name.lower().partition("__")
            config.set(f"{table}.{key}", float(value))
        if on_succeeded is not None:
            config.on_succeeded(on_succeeded)
        return config.log(level="error").build().without_workers()

    def begin(self, *arguments: str, app: str = APP) -> WorkerProcess:
        """Start one more, and don't wait until it runs."""
        worker = WorkerProcess(self, len(self.workers), arguments, app)
        self.workers.append(worker)
        return worker

    async def worker(self, *arguments: str, app: str = APP) -> WorkerProcess:
        """Start one more; it runs when this returns. This process goes on meanwhile: it may have leases to watch."""
        return await asyncio.to_thread(self.begin(*arguments, app=app).ready)

    def notes(self, what: str) -> list[tuple[str, int]]:
        """(job id, pid) of what was noted, in order."""
        if not self.notes_file.exists():
            return []
        # Whoever writes may be in the middle of the last line.
        whole, _, _ = self.notes_file.read_text().rpartition("\n")
        lines = [line.split() for line in whole.splitlines()]
        return [(line[1], int(line[2])) for line in lines if line[0] == what]


@contextmanager
def fleet(
    folder: Path,
    master: str,
    agents: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Fleet]:
    """Its processes are gone at the end, whatever happened. `agents` are URLs, `options` what an agent has besides."""
    made = Fleet(folder, master, agents, settings, options)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.end()
