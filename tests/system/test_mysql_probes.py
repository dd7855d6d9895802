"""A MariaDB that could not keep a promise is refused by the agent: by the setting's name, with what is lost and what to
do."""

from collections.abc import Callable
from typing import Any

import pytest

from jobmaster.model.errors import ConfigurationError, Refused, SchemaOutdated, UnsafeStore
from jobmaster_agents.mysql import MysqlAgent
from tests.servers import Mariadb, ask

pytestmark = pytest.mark.asyncio


def agent(url: str, **options: Any) -> MysqlAgent:
    return MysqlAgent(url, cluster="probes", name="transport-1", options=options)


async def refused(url: str, **options: Any) -> UnsafeStore:
    """Why it was; and nothing was left behind."""
    store = agent(url, **options)
    with pytest.raises(UnsafeStore) as refusal:
        await store.open()
    with pytest.raises(Refused, match="not open"):
        await store.probe()
    return refusal.value


async def test_what_forgets_is_refused_or_accepted_by_name(own_mariadb: Callable[..., Mariadb]) -> None:
    server = own_mariadb(settings={"innodb_doublewrite": "OFF", "log_bin": "binlog", "sync_binlog": "0"})
    ask(server.url, "SET GLOBAL innodb_flush_log_at_trx_commit = 2")

    refusal = await refused(server.url)

    assert (refusal.setting, refusal.found) == ("innodb_flush_log_at_trx_commit", "2")
    notes = " ".join(refusal.__notes__)
    assert "sync_binlog" in notes
    assert "innodb_doublewrite" in notes
    store = agent(server.url, accept_unsafe=True)
    try:
        assert len((await store.open()).findings) == 3
        ask(server.url, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        # One that was mended, or went bad, meanwhile.
        assert len((await store.probe()).findings) == 2
    finally:
        await store.close()


async def test_what_can_not_work_is_refused_whatever_is_accepted(own_mariadb: Callable[..., Mariadb]) -> None:
    server = own_mariadb()
    for setting, bad, good in (
        ("read_only", "ON", "OFF"),
        ("max_allowed_packet", "1048576", "16777216"),
        ("default_storage_engine", "MyISAM", "InnoDB"),
    ):
        ask(server.url, f"SET GLOBAL {setting} = {bad}")
        refusal = await refused(server.url, accept_unsafe=True)
        assert (refusal.setting, refusal.found) == (setting, bad)
        ask(server.url, f"SET GLOBAL {setting} = {good}")


async def test_a_table_of_another_engine_is_refused(mysql_url: str) -> None:
    store = agent(mysql_url)
    await store.open()
    await store.close()
    lane = store._tables.lane
    ask(mysql_url, f"ALTER TABLE {lane} ENGINE = MyISAM")

    refusal = await refused(mysql_url, accept_unsafe=True)

    assert (refusal.setting, refusal.found) == (f"engine of {lane}", "MyISAM")


async def test_missing_tables_are_named_where_they_may_not_be_made(mysql_url: str) -> None:
    with pytest.raises(SchemaOutdated, match="jobmaster migrate") as refusal:
        await agent(mysql_url, migrate=False).open()

    assert refusal.value.found is None


async def test_what_does_not_mend_itself_is_refused_at_once(mysql_url: str) -> None:
    with pytest.raises(Refused, match="Unknown database"):
        await agent(f"{mysql_url}_not").open()
    with pytest.raises(Refused, match="Access denied"):
        await agent(mysql_url.replace("root@", "nobody:secret@")).open()


@pytest.mark.parametrize(
    ("url", "words"),
    [("mysql://host:3306", "names no database"), ("mysql://host/db?sslmode=verify-full", "unknown options")],
)
async def test_an_url_that_says_too_little_or_too_much(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        agent(url)
