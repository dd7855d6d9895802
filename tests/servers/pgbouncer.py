"""pgbouncer in front of a Postgres, from Debian's package."""

import signal
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.packages import program
from tests.servers.process import ServerProcess
from tests.servers.user import give


@cache
def binary() -> Path:
    """Raises `Unavailable`."""
    return program("pgbouncer", "pgbouncer")


class Pgbouncer(ServerProcess):
    """Pools connections to every database of one Postgres server; by transaction, unless `settings` say otherwise."""

    kind = "pgbouncer"
    stop_signal = signal.SIGTERM

    def __init__(self, postgres_url: str, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self._behind = urlsplit(postgres_url)

    @property
    def url(self) -> str:
        return self.url_of(self._behind.geturl())

    def url_of(self, database_url: str) -> str:
        """The URL of one of the server's databases by way of the pool."""
        there = urlsplit(database_url)
        return there._replace(netloc=f"{there.username}@127.0.0.1:{self.port}").geturl()

    def prepare(self) -> None:
        binary()

    def configure(self) -> None:
        user = self._behind.username or "postgres"
        fixed = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": f"{self.folder}/users.txt",
            "admin_users": user,
            "pool_mode": "transaction",
            "default_pool_size": "20",
            "max_client_conn": "500",
            "pidfile": "",
        }
        text = "".join(f"{name} = {value}\n" for name, value in (fixed | self.settings).items())
        databases = f"* = host={self._behind.hostname} port={self._behind.port or 5432}"
        (self.folder / "users.txt").write_text(f'"{user}" "{self._behind.password or ""}"\n')
        (self.folder / "pgbouncer.ini").write_text(f"[databases]\n{databases}\n[pgbouncer]\n{text}")
        for name in ("users.txt", "pgbouncer.ini"):
            give(self.folder / name)

    def command(self) -> list[str]:
        return [str(binary()), str(self.folder / "pgbouncer.ini")]

    def ready(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2, autocommit=True) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False
