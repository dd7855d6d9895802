"""A server process of one's own: started, stopped by pid, killed, frozen, restarted on the port it had."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import psutil

from tests.servers.errors import Unavailable
from tests.servers.leftovers import Guard, removed_at_exit
from tests.servers.ports import free_port
from tests.servers.user import give, unprivileged
from tests.support import until

START_SECONDS = 60.0
STOP_SECONDS = 60.0


class ServerProcess(ABC):
    """Listens on 127.0.0.1 at `port`, keeps its data in `folder`. Port and data outlive `stop`, `kill` and `restart`;
    `remove` ends both."""

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, settings: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> None:
        """`settings` go into the server's configuration, `environment` on top of this process's own."""
        self.settings = dict(settings or {})
        self.environment = dict(environment or {})
        self.port = free_port()
        self.folder = removed_at_exit(Path(tempfile.mkdtemp(prefix=f"jm-{self.kind}-")))
        give(self.folder)
        self._process: subprocess.Popen[str] | None = None
        self._guard: Guard | None = None
        self._prepared = False

    @property
    @abstractmethod
    def url(self) -> str:
        """How a client reaches it."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder; once."""

    @abstractmethod
    def configure(self) -> None:
        """Write the configuration; before every start."""

    @abstractmethod
    def command(self) -> list[str]:
        """What runs, in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers a client."""

    @property
    def pid(self) -> int:
        """The server's main process."""
        if self._process is None:
            raise RuntimeError(f"{self.kind} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has printed since the folder was made."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """It answers when this returns. Raises `Unavailable` with the end of its log."""
        if self.running:
            return self
        if not self._prepared:
            self.prepare()
            self._prepared = True
        self.configure()
        until(self._try, within=START_SECONDS, what=f"{self.kind} starts", every=0.05)
        return self

    def stop(self) -> None:
        """In order: what was acknowledged is on disk, clients are sent away."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """As `kill -9` of the main process."""
        self._end(signal.SIGKILL)

    def restart(self, **settings: str) -> Self:
        """Stop, and start on the same port with the same data."""
        self.settings.update(settings)
        self.stop()
        return self.start()

    def freeze(self) -> None:
        """SIGSTOP to it and all its children: connections stay, nothing answers."""
        _signal(self._family(), signal.SIGSTOP)

    def thaw(self) -> None:
        _signal(self._family(), signal.SIGCONT)

    def remove(self) -> None:
        """Ended, and everything it had is gone."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _try(self) -> bool:
        if self._process is None:
            self._launch()
        assert self._process is not None
        if self._process.poll() is None:
            return self.ready()
        self._forget()
        if self.retry_start():
            return False
        raise Unavailable(f"{self.kind} does not start: {self.log[-2000:]}")

    def retry_start(self) -> bool:
        """Whether it gave up for a reason that passes, such as what a killed predecessor has left."""
        return False

    def _launch(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as output:
            process: subprocess.Popen[str] = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                **unprivileged(),
            )
        self._process = process
        self._guard = Guard(process.pid, self.folder)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            family = self._family()
            self._process.send_signal(number)
            # One that is frozen acts on no other signal, and a child does not even see that its parent is gone.
            _signal(family, signal.SIGCONT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._forget()

    def _forget(self) -> None:
        self._process = None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.dismiss()

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
