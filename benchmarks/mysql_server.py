"""The MySQL or MariaDB server of a benchmark run: started by the resolver of the tests with the settings it has by
default, so what it acknowledges is on disk."""

import os
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

from benchmarks.postgres_server import server_cpu
from tests.servers.mariadb import Mariadb


def operator(url: str) -> "pymysql.Connection[Any]":
    """A connection for what is not measured."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=parts.path[1:] or None,
        autocommit=True,
        charset="utf8mb4",
    )


def ask(url: str, sql: str) -> list[tuple[Any, ...]]:
    with operator(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


class Server:
    """A throw-away server, or the one that JOBMASTER_TEST_MYSQL_URL names."""

    def __init__(self) -> None:
        given = os.environ.get("JOBMASTER_TEST_MYSQL_URL")
        self._process: Mariadb | None = None
        if given:
            self.url = given
            return
        self._process = Mariadb()
        self._process.start()
        self.url = self._process.url

    def fresh(self, name: str) -> str:
        """An empty database of that name; gives its URL. What was there goes."""
        self.drop(name)
        ask(self.url, f"CREATE DATABASE bench_{name}")
        return urlsplit(self.url)._replace(path=f"/bench_{name}").geturl()

    def drop(self, name: str) -> None:
        ask(self.url, f"DROP DATABASE IF EXISTS bench_{name}")

    def version(self) -> str:
        return str(ask(self.url, "SELECT version()")[0][0])

    def deadlocks(self) -> int:
        """How many the server has seen since it began."""
        found = ask(self.url, "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        return int(found[0][1]) if found else 0

    def cpu_seconds(self) -> float | None:
        """Processor time of the server until now; None for a server that is not ours."""
        return None if self._process is None else server_cpu(self._process.pid)

    def stop(self) -> None:
        if self._process is not None:
            self._process.remove()
