"""Fixtures over the servers. One server of a kind serves a whole run; what a test gets is a database of its own."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, TypeVar

import pytest

from tests.servers.databases import create_database, drop_database
from tests.servers.errors import Unavailable
from tests.servers.mariadb import Mariadb
from tests.servers.nats import Nats
from tests.servers.nats_cluster import NatsCluster
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import Postgres
from tests.servers.process import ServerProcess
from tests.servers.resolver import Endpoint, resolve

Server = TypeVar("Server", bound=ServerProcess)

__all__ = [
    "mysql_module_url",
    "mysql_server",
    "mysql_url",
    "nats_cluster",
    "nats_monitor",
    "nats_server",
    "nats_url",
    "own_mariadb",
    "own_nats",
    "own_pgbouncer",
    "own_postgres",
    "own_server",
    "postgres_module_url",
    "postgres_server",
    "postgres_url",
    "sql_kind",
    "sql_url",
]


def missing(reason: str, environment: Mapping[str, str] = os.environ) -> NoReturn:
    """A server that can't be had fails a run in CI, and is a skip that says why elsewhere."""
    if environment.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _server(kind: str) -> Iterator[Endpoint]:
    try:
        endpoint = resolve(kind)
    except Unavailable as error:
        missing(str(error))
    yield endpoint
    endpoint.stop()


def _database(server: Endpoint) -> Iterator[str]:
    url = create_database(server.url)
    yield url
    drop_database(server.url, url)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Endpoint]:
    """The Postgres of this run. Shared: who wants to stop one takes `own_postgres`."""
    yield from _server("postgres")


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Endpoint]:
    """The MySQL or MariaDB of this run, shared."""
    yield from _server("mysql")


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Endpoint]:
    """The NATS of this run, shared."""
    yield from _server("nats")


@pytest.fixture
def nats_url(nats_server: Endpoint) -> str:
    """Where the NATS of this run is; streams are told apart by the names of cluster and agent."""
    return nats_server.url


@pytest.fixture
def nats_monitor(nats_server: Endpoint) -> str:
    """Where its monitoring is."""
    if not isinstance(nats_server.process, Nats):
        missing("the monitoring of a NATS server that was given is not known")
    return nats_server.process.monitor


@pytest.fixture
def postgres_url(postgres_server: Endpoint) -> Iterator[str]:
    """An empty database for one test."""
    yield from _database(postgres_server)


@pytest.fixture(scope="module")
def postgres_module_url(postgres_server: Endpoint) -> Iterator[str]:
    """An empty database for the tests of a module, who share it."""
    yield from _database(postgres_server)


@pytest.fixture
def mysql_url(mysql_server: Endpoint) -> Iterator[str]:
    """An empty database for one test."""
    yield from _database(mysql_server)


@pytest.fixture(scope="module")
def mysql_module_url(mysql_server: Endpoint) -> Iterator[str]:
    """An empty database for the tests of a module, who share it."""
    yield from _database(mysql_server)


@pytest.fixture
def own_postgres() -> Iterator[Callable[..., Postgres]]:
    """Starts a Postgres that a test may do anything to; takes `settings` and `environment`."""
    servers: list[ServerProcess] = []

    def start(**options: Mapping[str, str]) -> Postgres:
        server = Postgres(**options)
        servers.append(server)
        return _started(server)

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def own_mariadb() -> Iterator[Callable[..., Mariadb]]:
    """Starts a MariaDB that a test may do anything to; takes `settings` and `environment`."""
    servers: list[ServerProcess] = []

    def start(**options: Mapping[str, str]) -> Mariadb:
        server = Mariadb(**options)
        servers.append(server)
        return _started(server)

    yield start
    for server in servers:
        server.remove()


@pytest.fixture(params=["postgres", "mysql"])
def sql_kind(request: pytest.FixtureRequest) -> str:
    """A test that uses it, or one of the two below, runs once for each kind of SQL server."""
    return str(request.param)


@pytest.fixture
def sql_url(sql_kind: str, request: pytest.FixtureRequest) -> str:
    """An empty database for one test."""
    return str(request.getfixturevalue(f"{sql_kind}_url"))


@pytest.fixture
def own_server(sql_kind: str, request: pytest.FixtureRequest) -> Callable[..., Postgres | Mariadb]:
    """Starts one that a test may do anything to; takes `settings` and `environment`."""
    name = {"postgres": "own_postgres", "mysql": "own_mariadb"}[sql_kind]
    start: Callable[..., Postgres | Mariadb] = request.getfixturevalue(name)
    return start


@pytest.fixture
def own_pgbouncer() -> Iterator[Callable[..., Pgbouncer]]:
    """Starts a pgbouncer before the Postgres of a URL; takes `settings`."""
    servers: list[ServerProcess] = []

    def start(postgres_url: str, **options: Mapping[str, str]) -> Pgbouncer:
        server = Pgbouncer(postgres_url, **options)
        servers.append(server)
        return _started(server)

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def own_nats() -> Iterator[Callable[..., Nats]]:
    """Starts a NATS server that a test may do anything to; takes `settings`, and `sync` for its `sync_interval`."""
    servers: list[ServerProcess] = []

    def start(*, sync: str = "always", **options: Mapping[str, str]) -> Nats:
        server = Nats(**options)
        server.sync = sync
        servers.append(server)
        return _started(server)

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def nats_cluster() -> Iterator[NatsCluster]:
    """Three NATS servers that form a cluster, for one test."""
    cluster = NatsCluster()
    try:
        yield cluster.start()
    except Unavailable as error:
        missing(str(error))
    finally:
        cluster.remove()


def _started(server: Server) -> Server:
    try:
        return server.start()
    except Unavailable as error:
        missing(str(error))
