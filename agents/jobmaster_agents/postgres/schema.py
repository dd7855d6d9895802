"""Bringing an agent's tables to the revision this code works with."""

from pathlib import Path
from typing import Any

import asyncpg

from jobmaster.contracts.migrating import one_at_a_time
from jobmaster.model.errors import SchemaOutdated
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.postgres.connection import Database
from jobmaster_agents.postgres.tables import Tables

HEAD = "0001"
"""The newest file in `migrations/versions`; a test compares."""

MIGRATE_SECONDS = 600.0
"""A migration may take that long, and wait that long for another process's."""

_MIGRATIONS = Path(__file__).parent / "migrations"


async def ensure_schema(database: Database, tables: Tables) -> None:
    """Create or upgrade the tables, in one transaction and one process at a time. Does next to nothing, and imports
    nothing, where they are at `HEAD` already. Raises `SchemaOutdated` where newer code has been at work."""
    found = await stored_revision(database, tables)
    if found == HEAD:
        return
    known = {path.stem[1:5] for path in (_MIGRATIONS / "versions").glob("r*.py")}
    if found is not None and found not in known:
        raise _newer(database, found)
    await _migrate(database, tables)


async def check_schema(database: Database, tables: Tables) -> None:
    """Raise `SchemaOutdated` unless the tables are at `HEAD`. Changes nothing."""
    found = await stored_revision(database, tables)
    if found is not None and found > HEAD:
        raise _newer(database, found)
    if found != HEAD:
        raise SchemaOutdated(database.address.shown, found, HEAD)


async def stored_revision(database: Database, tables: Tables) -> str | None:
    """The revision the tables are at; None where there are none."""
    [[there]] = await database.ask("SELECT to_regclass($1) IS NOT NULL", tables.version)
    if not there:
        return None
    found = await database.ask(f"SELECT version_num FROM {tables.version}")
    return str(found[0][0]) if found else None


def _newer(database: Database, found: str) -> SchemaOutdated:
    remedy = "it was written by a newer version; upgrade this installation"
    return SchemaOutdated(database.address.shown, found, HEAD, remedy)


async def _migrate(database: Database, tables: Tables) -> None:
    # Alembic and SQLAlchemy take longer to import than an agent to open; a database that is up to date needs neither.
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    settings = {**database.settings(), "command_timeout": MIGRATE_SECONDS, "connection_class": asyncpg.Connection}
    if not database.pooled:
        settings["server_settings"] = {"application_name": "jobmaster migrate", "lock_timeout": "600000"}

    def connect(*_: Any, **__: Any) -> Any:
        return asyncpg.connect(**settings)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        poolclass=NullPool,
        connect_args={"prepared_statement_cache_size": 0},
    )
    try:
        async with one_at_a_time(), engine.begin() as connection:
            # Released with the transaction, so it also holds behind a pooler and after a crash.
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock(hashtextextended('{tables.version}', 0))")
            await connection.run_sync(_upgrade, tables)
            failpoint("migration.step")
    finally:
        await engine.dispose()


def _upgrade(connection: Any, tables: Tables) -> None:
    from alembic.command import upgrade
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["prefix"] = tables.prefix
    config.attributes["version_table"] = tables.version
    upgrade(config, HEAD)
