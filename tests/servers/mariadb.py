"""MariaDB, from Debian's `mariadb-server-core` or whatever is installed."""

import subprocess
from functools import cache
from pathlib import Path

from tests.servers.errors import Unavailable
from tests.servers.packages import program
from tests.servers.process import ServerProcess
from tests.servers.user import run_unprivileged

PACKAGE = "mariadb-server-core"


@cache
def binary() -> Path:
    """Raises `Unavailable`."""
    return program("mariadbd", PACKAGE)


class Mariadb(ServerProcess):
    """One server; user `root`, no password. As MariaDB is without settings."""

    kind = "mysql"

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/mysql"

    def prepare(self) -> None:
        install = program("mariadb-install-db", PACKAGE)
        command = [str(install), "--no-defaults", f"--datadir={self.folder}/data", f"--tmpdir={self.folder}"]
        try:
            run_unprivileged([*command, "--auth-root-authentication-method=normal", "--skip-test-db"])
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"mariadb-install-db failed: {getattr(error, 'output', None) or error}") from error

    def configure(self) -> None:
        fixed = {
            "datadir": f"{self.folder}/data",
            "tmpdir": str(self.folder),
            "socket": f"{self.folder}/socket",
            "pid-file": f"{self.folder}/pid",
            "port": str(self.port),
            "bind-address": "127.0.0.1",
            "max_connections": "300",
        }
        text = "".join(f"{name}={value}\n" for name, value in (fixed | self.settings).items())
        (self.folder / "my.cnf").write_text(f"[mariadbd]\n{text}")

    def command(self) -> list[str]:
        return [str(binary()), f"--defaults-file={self.folder}/my.cnf"]

    def ready(self) -> bool:
        import pymysql

        try:
            with pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=2) as connection:
                connection.ping()
                return True
        except pymysql.err.OperationalError:
            return False
