"""A Postgres that could not keep a promise is refused: by the setting's name, with what is lost and what to do."""

import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from jobmaster.model.errors import AgentUnreachable, Refused, SchemaOutdated, UnsafeStore
from jobmaster_agents.postgres import PostgresAgent
from tests.servers import Postgres
from tests.servers.user import give
from tests.support import eventually

pytestmark = pytest.mark.asyncio


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def set_for_database(url: str, setting: str, value: str) -> None:
    execute(url, f"ALTER DATABASE {urlsplit(url).path[1:]} SET {setting} = '{value}'")


def agent(url: str, **options: Any) -> PostgresAgent:
    return PostgresAgent(url, cluster="probes", name="transport-1", options=options)


async def refused(url: str, **options: Any) -> UnsafeStore:
    """Why it was; and nothing was left behind."""
    store = agent(url, **options)
    with pytest.raises(UnsafeStore) as refusal:
        await store.open()
    with pytest.raises(Refused, match="not open"):
        await store.probe()
    return refusal.value


@pytest.mark.parametrize("value", ["off", "local"])
async def test_a_commit_that_does_not_wait_is_refused_or_accepted_by_name(postgres_url: str, value: str) -> None:
    set_for_database(postgres_url, "synchronous_commit", value)

    refusal = await refused(postgres_url)

    assert (refusal.setting, refusal.found) == ("synchronous_commit", value)
    assert "accept_unsafe" in refusal.remedy
    assert "acknowledged" in refusal.promise
    store = agent(postgres_url, accept_unsafe=True)
    try:
        report = await store.open()
        assert [finding for finding in report.findings if "synchronous_commit" in finding and "acknowledged" in finding]
    finally:
        await store.close()


async def test_a_server_that_does_not_write_through_is_refused(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres(settings={"fsync": "off", "full_page_writes": "off"})

    refusal = await refused(server.url)

    assert (refusal.setting, refusal.found) == ("fsync", "off")
    assert any("full_page_writes" in note for note in refusal.__notes__)
    store = agent(server.url, accept_unsafe=True)
    try:
        findings = " ".join((await store.open()).findings)
    finally:
        await store.close()
    assert "fsync is 'off'" in findings
    assert "full_page_writes is 'off'" in findings


async def test_a_standby_is_refused_whatever_is_accepted(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    server.stop()
    mark = server.data / "standby.signal"
    mark.touch()
    give(mark)
    server.start()

    refusal = await refused(server.url, accept_unsafe=True)

    assert refusal.setting == "pg_is_in_recovery()"
    assert "primary" in refusal.remedy


async def test_another_encoding_is_refused(postgres_url: str) -> None:
    name = f"{urlsplit(postgres_url).path[1:]}_ascii"
    execute(postgres_url, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        refusal = await refused(urlsplit(postgres_url)._replace(path=f"/{name}").geturl(), accept_unsafe=True)
    finally:
        execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")

    assert (refusal.setting, refusal.found) == ("server_encoding", "SQL_ASCII")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("default_transaction_isolation", "serializable"), ("default_transaction_read_only", "on")],
)
async def test_sessions_that_could_not_work_are_refused(postgres_url: str, setting: str, value: str) -> None:
    set_for_database(postgres_url, setting, value)

    assert (await refused(postgres_url)).setting == setting


async def test_missing_tables_are_named_where_they_may_not_be_made(postgres_url: str) -> None:
    store = agent(postgres_url, migrate=False)

    with pytest.raises(SchemaOutdated, match="jobmaster migrate") as refusal:
        await store.open()

    assert refusal.value.found is None


async def test_a_setting_that_goes_bad_meanwhile_is_a_finding(postgres_url: str) -> None:
    store = agent(postgres_url, pool=2)
    try:
        await store.open()
        set_for_database(postgres_url, "synchronous_commit", "off")
        # Sessions keep what they began with.
        mine = "datname = current_database() AND pid <> pg_backend_pid()"
        execute(postgres_url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {mine}")

        async def found() -> list[str]:
            with contextlib.suppress(AgentUnreachable):  # the connection that was ended just now
                return [finding for finding in (await store.probe()).findings if "synchronous_commit" in finding]
            return []

        [finding] = await eventually(found)
        assert "acknowledged" in finding
    finally:
        await store.close()
