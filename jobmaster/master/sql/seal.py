"""The seal: a master that was moved to another database refuses every write, whoever makes it.

It is kept by triggers of the database itself. So it costs nothing as long as there is none, and holds for processes of
any release. To make a trigger the database waits for those who are writing to that table: what they commit is there
when the seal is complete. Table by table, each in a transaction of its own, since all at once could wait in a circle.
"""

from functools import partial

import msgspec
from sqlalchemy import Connection, delete, select

from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.dialects import SEALED
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.tables import Tables
from jobmaster.telemetry.failpoints import failpoint

_NAME = "sealed"
_ACTIONS = ("INSERT", "UPDATE", "DELETE")


class Seal(msgspec.Struct, frozen=True):
    """Why a master takes no writes."""

    to: str
    """Where it was moved to, without secrets."""
    at_us: int
    by: str

    @property
    def words(self) -> str:
        """What the database says to whoever writes. Without what a driver or the database would read as a mark."""
        to = self.to.replace("%", "").replace("'", "")
        return f"{SEALED}; it is moved to {to}, give every process that address"


def seal_of(connection: Connection, tables: Tables) -> Seal | None:
    """The seal, from when it was begun."""
    meta = tables.meta.c
    raw: str | None = connection.execute(select(meta.value).where(meta.name == _NAME)).scalar()
    return None if raw is None else msgspec.json.decode(raw, type=Seal)


async def put_on(engine: Engine, tables: Tables, seal: Seal) -> Seal:
    """When this returns nothing can be written any more. Repeating it completes what was cut short; a seal that is
    there stays what it is, and is given."""

    def begin(connection: Connection) -> Seal:
        known = seal_of(connection, tables)
        if known is None:
            values = [(_NAME, msgspec.json.encode(seal).decode())]
            BulkInsert(tables.meta, ("name", "value"), key=("name",)).run(connection, values)
        return known or seal

    stored = await engine.read(lambda connection: seal_of(connection, tables), at_once=True)
    if stored is None:
        stored = await engine.write(begin)
        failpoint("relocation.sealing")
    for name in _order(tables):
        await engine.change_schema(partial(_close, prefix=tables.prefix, table=name, words=stored.words))
    return stored


async def take_off(engine: Engine, tables: Tables) -> None:
    """Writes are taken again."""
    for name in reversed(_order(tables)):
        await engine.change_schema(partial(_open, table=name))
    await engine.write(
        lambda connection: connection.execute(delete(tables.meta).where(tables.meta.c.name == _NAME)).rowcount
    )


def _order(tables: Tables) -> list[str]:
    """`meta` last, as it holds the seal."""
    names = sorted(table.name for table in tables.metadata.tables.values() if table is not tables.meta)
    return [*names, tables.meta.name]


def _close(connection: Connection, prefix: str, table: str, words: str) -> None:
    _open(connection, table)
    match connection.dialect.name:
        case "postgresql":
            connection.exec_driver_sql(
                f"CREATE OR REPLACE FUNCTION {prefix}seal() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION '{words}' USING ERRCODE = 'JM001'; END $$"
            )
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_seal BEFORE INSERT OR UPDATE OR DELETE ON {table} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {prefix}seal()"
            )
        case "sqlite":
            for action in _ACTIONS:
                connection.exec_driver_sql(
                    f"CREATE TRIGGER {table}_seal_{action} BEFORE {action} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
                )
        case _:
            for action in _ACTIONS:
                connection.exec_driver_sql(
                    f"CREATE TRIGGER {table}_seal_{action} BEFORE {action} ON {table} FOR EACH ROW "
                    f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{words[:128]}'"
                )


def _open(connection: Connection, table: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_seal ON {table}")
        return
    for action in _ACTIONS:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_seal_{action}")
