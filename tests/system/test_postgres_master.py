"""The master on Postgres: what it refuses."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from jobmaster.contracts.master import MasterStore
from jobmaster.master import open_master
from jobmaster.model.errors import StoreError, UnsafeStore
from jobmaster.testing.clock import ManualClock
from tests.servers import Postgres


def master_at(url: str, **options: Any) -> MasterStore:
    return open_master(url, cluster="test", clock=ManualClock(), options=options)


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Callable[..., Any]]:
    masters: list[MasterStore] = []

    async def start(url: str, **options: Any) -> MasterStore:
        master = master_at(url, **options)
        masters.append(master)
        await master.open()
        return master

    yield start
    for master in masters:
        await master.close()


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.mark.asyncio
@pytest.mark.parametrize("setting", ["synchronous_commit", "fsync"])
async def test_a_server_that_forgets_is_refused_unless_that_is_accepted(
    own_postgres: Callable[..., Postgres], opened: Callable[..., Any], setting: str
) -> None:
    url = own_postgres(settings={setting: "off"}).url
    with pytest.raises(UnsafeStore, match=rf"{setting}.*off(.|\n)*accept_unsafe"):
        await opened(url)
    master = await opened(url, accept_unsafe=True)
    assert any(setting in finding for finding in (await master.probe()).findings)


@pytest.mark.asyncio
async def test_what_became_unsafe_is_seen_by_the_next_probe(postgres_url: str, opened: Callable[..., Any]) -> None:
    master = await opened(postgres_url)
    assert (await master.probe()).facts["synchronous_commit"] == "on"
    database = postgres_url.rpartition("/")[2]
    execute(postgres_url, f"ALTER DATABASE {database} SET synchronous_commit = off")
    ours = "application_name = 'jobmaster master' AND datname = current_database()"
    execute(postgres_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
    with pytest.raises(UnsafeStore, match="synchronous_commit"):
        await master.probe()


@pytest.mark.asyncio
async def test_encryption_is_asked_for_as_the_agent_does(
    own_postgres: Callable[..., Postgres], opened: Callable[..., Any]
) -> None:
    """In the URL, by the words of libpq; this server offers none."""
    url = own_postgres().url
    await (await opened(f"{url}?sslmode=prefer")).store_now_us()
    with pytest.raises(StoreError, match="SSL"):
        await opened(f"{url}?sslmode=require")
