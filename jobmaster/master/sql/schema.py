"""Which schema a database has, and bringing it up. Alembic is loaded only when there is something to do."""

from pathlib import Path

from sqlalchemy import Connection, column, inspect, select, table

import jobmaster.master.migrations
from jobmaster.master.migrations import HEAD
from jobmaster.model.errors import SchemaOutdated


def revision(connection: Connection, prefix: str) -> str | None:
    """The revision of the cluster's tables; None if there are none."""
    name = f"{prefix}revision"
    if not inspect(connection).has_table(name):
        return None
    return connection.execute(select(column("version_num")).select_from(table(name))).scalar()


def upgrade(connection: Connection, prefix: str, store: str) -> None:
    """Bring the schema to `HEAD`; nothing to do if another process was first. What a crash has left behind is
    completed, as every step may be repeated. The caller lets no other migration run beside it. Raises `SchemaOutdated`
    for a revision that this code does not know."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    found = revision(connection, prefix)
    config = Config()
    config.set_main_option("script_location", str(Path(jobmaster.master.migrations.__file__).parent))
    config.attributes.update(connection=connection, prefix=prefix)
    try:
        command.upgrade(config, HEAD)
    except CommandError as error:
        raise unknown(store, found) from error


def unknown(store: str, found: str | None) -> SchemaOutdated:
    """The schema was made by a later release."""
    return SchemaOutdated(store, found, HEAD, "it is from a later release: upgrade jobmaster-runtime on this host")
