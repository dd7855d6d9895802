"""Servers of our own: they start, keep port and data over every kind of end, and leave nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pymysql
import pytest

from tests.servers import Endpoint, Mariadb, Nats, Pgbouncer, Postgres, Unavailable
from tests.servers.fixtures import missing
from tests.servers.ports import FIRST, LAST, free_port
from tests.servers.process import ServerProcess
from tests.support import until


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def shown(url: str, name: str) -> str:
    with psycopg.connect(url) as connection:
        return str(connection.execute(f"SHOW {name}".encode()).fetchall()[0][0])


def test_a_port_is_free_and_no_outgoing_connection_will_take_it() -> None:
    assert FIRST <= free_port() < LAST


def test_a_postgres_is_durable_by_default_and_takes_settings(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres(settings={"work_mem": "8MB", "application_name": "it's"})
    assert shown(server.url, "work_mem") == "8MB"
    assert shown(server.url, "application_name") == "it's"
    assert {shown(server.url, name) for name in ("fsync", "synchronous_commit", "full_page_writes")} == {"on"}
    assert shown(server.url, "server_encoding") == "UTF8"
    server.restart(fsync="off")
    assert shown(server.url, "fsync") == "off"


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill], ids=["stopped", "killed"])
def test_a_postgres_keeps_port_and_data(own_postgres: Callable[..., Postgres], end: Callable[[Postgres], None]) -> None:
    server = own_postgres()
    url, first = server.url, server.pid
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        end(server)
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    server.start()
    assert (server.url, server.pid != first) == (url, True)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_a_frozen_postgres_answers_when_it_is_thawed(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    with psycopg.connect(server.url, autocommit=True) as connection:
        server.freeze()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url, connect_timeout=2)
        server.thaw()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        server.freeze()
    server.stop()
    assert not server.running


def test_a_server_that_does_not_start_says_why() -> None:
    server = Postgres(settings={"shared_buffers": "many"})
    try:
        with pytest.raises(Unavailable, match="shared_buffers"):
            server.start()
    finally:
        server.remove()


def test_a_folder_goes_with_its_server(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    pid = server.pid
    server.remove()
    assert not alive(pid)
    assert not server.folder.exists()


PROGRAM = """
import sys
from tests.servers import Nats
server = Nats().start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_when_the_run_is_killed() -> None:
    root = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, str(Path(root, "agents"))])}
    pipe = subprocess.PIPE
    run = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=pipe, stdout=pipe, env=environment, text=True)
    with run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        assert alive(int(pid))
        run.send_signal(signal.SIGKILL)
    until(lambda: not alive(int(pid)) and not Path(folder).exists(), what="server and folder go")


def test_nats_keeps_its_port() -> None:
    with _started(Nats()) as server:
        url, first = server.url, server.pid
        server.kill()
        server.start()
        assert (server.url, server.pid != first) == (url, True)


def test_mariadb_keeps_port_and_data() -> None:
    with _started(Mariadb(settings={"innodb_lock_wait_timeout": "7"})) as server:
        with pymysql.connect(host="127.0.0.1", port=server.port, user="root", autocommit=True) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT @@innodb_lock_wait_timeout, @@innodb_flush_log_at_trx_commit")
            assert cursor.fetchone() == (7, 1)
            cursor.execute("CREATE DATABASE kept")
        server.kill()
        server.start()
        with pymysql.connect(host="127.0.0.1", port=server.port, user="root", database="kept") as connection:
            connection.ping()


def test_pgbouncer_pools_by_transaction(
    postgres_server: Endpoint, postgres_url: str, own_pgbouncer: Callable[..., Pgbouncer]
) -> None:
    pool = own_pgbouncer(postgres_server.url, settings={"default_pool_size": "1"})
    url = pool.url_of(postgres_url)
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
        pids = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (one, other)}
        assert len(pids) == 1
        assert one.execute("SELECT current_database()").fetchone() == (postgres_url.rpartition("/")[2],)


def _started(server: ServerProcess) -> ServerProcess:
    try:
        return server.start()
    except Unavailable as error:
        server.remove()
        missing(str(error))
