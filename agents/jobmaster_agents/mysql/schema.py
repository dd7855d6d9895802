"""Bringing an agent's tables to the revision this code works with."""

from pathlib import Path
from typing import Any

from jobmaster.contracts.migrating import one_at_a_time
from jobmaster.model.errors import Refused, SchemaOutdated
from jobmaster.mysql_connecting import connect
from jobmaster.telemetry.failpoints import failpoint
from jobmaster_agents.mysql.connection import Database
from jobmaster_agents.mysql.tables import Tables

HEAD = "0001"
"""The newest file in `migrations/versions`; a test compares."""

MIGRATE_SECONDS = 600
"""How long a migration waits for another process's."""

_MIGRATIONS = Path(__file__).parent / "migrations"


async def ensure_schema(database: Database, tables: Tables) -> None:
    """Create or upgrade the tables, one process at a time. A definition is committed at once here, so each step may be
    repeated: one that was cut off in the middle is done again. Does next to nothing, and imports nothing, where the
    tables are at `HEAD` already. Raises `SchemaOutdated` where newer code has been at work."""
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
    there = await database.ask(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?", tables.version
    )
    if not there:
        return None
    found = await database.ask(f"SELECT version_num FROM {tables.version}")
    return str(found[0][0]) if found else None


def _newer(database: Database, found: str) -> SchemaOutdated:
    remedy = "it was written by a newer version; upgrade this installation"
    return SchemaOutdated(database.address.shown, found, HEAD, remedy)


async def _migrate(database: Database, tables: Tables) -> None:
    # Alembic and SQLAlchemy take longer to import than an agent to open; a database that is up to date needs neither.
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    address = database.address
    url = URL.create("mysql+aiomysql", address.user, address.password or None, address.host, address.port)
    arguments = {"ssl": address.tls} if address.socket is None else {"unix_socket": address.socket}
    engine = create_async_engine(
        url.set(database=address.database),
        poolclass=NullPool,
        connect_args={
            **arguments,
            "async_creator_fn": connect,
            "charset": "utf8mb4",
            "init_command": "SET lock_wait_timeout = 600",
        },
    )
    try:
        async with one_at_a_time(), engine.connect() as connection:
            # Held by the session: whoever dies with it lets go.
            name = f"{address.database[:10]}.{tables.prefix}"
            got = await connection.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (name, MIGRATE_SECONDS))
            if got.scalar() != 1:
                raise Refused(
                    f"{address.shown}: another process has been migrating {tables.prefix}* for {MIGRATE_SECONDS} s; "
                    "end it, or wait, and start again"
                )
            try:
                await connection.run_sync(_upgrade, tables)
                await connection.commit()
            finally:
                await connection.exec_driver_sql("SELECT RELEASE_LOCK(%s)", (name,))
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
