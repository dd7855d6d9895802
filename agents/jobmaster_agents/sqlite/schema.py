"""Bringing an agent's tables to the revision this code works with."""

import sqlite3
from pathlib import Path

from jobmaster.contracts.migrating import ONE_AT_A_TIME
from jobmaster.model.errors import SchemaOutdated
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.sqlite.tables import Tables

HEAD = "0001"
"""The newest file in `migrations/versions`; a test compares."""

_MIGRATIONS = Path(__file__).parent / "migrations"


def ensure_schema(connection: sqlite3.Connection, tables: Tables, store: str) -> None:
    """Create or upgrade the tables, in the writer's transaction. Does next to nothing, and imports nothing, where they
    are at `HEAD` already. Raises `SchemaOutdated` where newer code has been at work."""
    found = stored_revision(connection, tables)
    if found == HEAD:
        name_store(connection, tables)
        return
    known = {path.stem[1:5] for path in (_MIGRATIONS / "versions").glob("r*.py")}
    if found is not None and found not in known:
        raise _newer(store, found)
    _migrate(connection, tables)
    failpoint("migration.step")


def name_store(connection: sqlite3.Connection, tables: Tables) -> None:
    """A store whose rows were all deleted gets a name again: another one, so that nobody takes it for what it was."""
    connection.execute(
        f"INSERT INTO {tables.meta} SELECT 1, lower(hex(randomblob(16))), 'open', 0 "
        f"WHERE NOT EXISTS (SELECT 1 FROM {tables.meta})"
    )


def check_schema(connection: sqlite3.Connection, tables: Tables, store: str) -> None:
    """Raise `SchemaOutdated` unless the tables are at `HEAD`. Changes nothing."""
    found = stored_revision(connection, tables)
    if found is not None and found > HEAD:
        raise _newer(store, found)
    if found != HEAD:
        raise SchemaOutdated(store, found, HEAD)


def _newer(store: str, found: str) -> SchemaOutdated:
    return SchemaOutdated(store, found, HEAD, "it was written by a newer version; upgrade this installation")


def stored_revision(connection: sqlite3.Connection, tables: Tables) -> str | None:
    """The revision the file is at; None for a new one."""
    there = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (tables.version,)
    ).fetchone()
    if there is None:
        return None
    found: tuple[str] | None = connection.execute(f"SELECT version_num FROM {tables.version}").fetchone()
    return None if found is None else found[0]


def _migrate(connection: sqlite3.Connection, tables: Tables) -> None:
    # Alembic and SQLAlchemy take longer to import than an agent to open; a file that is up to date needs neither.
    from alembic.command import upgrade
    from alembic.config import Config

    from jobmaster.sqlite.core import core_engine

    engine = core_engine(connection)
    with engine.connect() as core:
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = core
        config.attributes["prefix"] = tables.prefix
        config.attributes["version_table"] = tables.version
        with ONE_AT_A_TIME:
            upgrade(config, HEAD)
    engine.dispose()
