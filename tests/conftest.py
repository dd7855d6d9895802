"""What holds for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.servers.fixtures import (
    mysql_module_url,
    mysql_server,
    mysql_url,
    nats_cluster,
    nats_monitor,
    nats_server,
    nats_url,
    own_mariadb,
    own_nats,
    own_pgbouncer,
    own_postgres,
    own_server,
    postgres_module_url,
    postgres_server,
    postgres_url,
    sql_kind,
    sql_url,
)

UNIT = Path(__file__).parent / "unit"

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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first, in whatever order they were shuffled into, and quick ones last: whoever runs several at a time
    then has none left that the others would have to wait for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, UNIT in item.path.parents))


@pytest.fixture(autouse=True)
def unconfigured_logging() -> Iterator[None]:
    """A cluster that is run configures logging where the program has not: that must not outlast its test."""
    yield
    structlog.reset_defaults()
