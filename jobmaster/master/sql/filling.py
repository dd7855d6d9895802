"""Filling an empty master with what another one has, table by table, in the order of the keys.

How far it is, is written with each batch, in its transaction; so it goes on where it was cut short, and until it is
complete nobody else can open the new master.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Select, Table, delete, func, literal, select, tuple_

from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.tables import Tables

Row = Mapping[str, Any]

BATCH = 1_000
_NAME = "filling"
_DONE = "filled_from"


class Filling(msgspec.Struct, frozen=True):
    """How far it is."""

    source: str
    """Where from, without secrets."""
    incarnation: str
    """Whose rows these are."""
    table: str = ""
    after: tuple[Any, ...] = ()
    """The key of the last row that was written of that table."""


def filling_of(connection: Connection, tables: Tables) -> Filling | None:
    """How far a filling is that is not complete."""
    raw = _read(connection, tables, _NAME)
    return None if raw is None else msgspec.json.decode(raw, type=Filling)


def filled_from(connection: Connection, tables: Tables) -> Filling | None:
    """Whose rows this master was filled with."""
    raw = _read(connection, tables, _DONE)
    return None if raw is None else msgspec.json.decode(raw, type=Filling)


def begin(connection: Connection, tables: Tables, filling: Filling) -> None:
    _note(connection, tables, _NAME, filling)


def complete(connection: Connection, tables: Tables, filling: Filling) -> None:
    """From now on it may be opened."""
    _note(connection, tables, _DONE, filling)
    connection.execute(delete(tables.meta).where(tables.meta.c.name == _NAME))


def parts(tables: Tables) -> tuple[Table, ...]:
    """What is brought over. Not the workers, who tell the new master that they live, nor terms of duties, which end by
    themselves; of `meta` see `notes`."""
    left = (tables.worker, tables.term, tables.meta)
    return tuple(table for table in tables.metadata.sorted_tables if table not in left)


def rows_after(connection: Connection, tables: Tables, table: Table, after: Sequence[Any]) -> list[Row]:
    """The next batch of one of the tables in the order of its key."""
    keys = [*table.primary_key.columns]
    query: Select[Any] = select(table).order_by(*keys).limit(BATCH)
    if after:
        given = [literal(value, key.type) for key, value in zip(keys, after, strict=True)]
        query = query.where(keys[0] > given[0] if len(keys) == 1 else tuple_(*keys) > tuple_(*given))
    return [dict(row) for row in connection.execute(query).mappings()]


def write(connection: Connection, tables: Tables, table: str, rows: Sequence[Row], filling: Filling) -> Filling:
    """Write a batch of the table of that name, and how far it is then."""
    into = tables.metadata.tables[table]
    columns = [column.name for column in into.columns]
    keys = [column.name for column in into.primary_key.columns]
    insert = BulkInsert(into, columns, key=keys, replacing=len(keys) < len(columns))
    insert.run(connection, [tuple(row[name] for name in columns) for row in rows])
    filling = replace(filling, table=str(table), after=tuple(rows[-1][name] for name in keys))
    _note(connection, tables, _NAME, filling)
    return filling


def sums(connection: Connection, tables: Tables) -> list[tuple[str, tuple[int, ...]]]:
    """What both masters must agree on: rows of each table; of jobs also their versions and epochs in sum."""
    found = []
    for table in parts(tables):
        also = (func.sum(table.c.version), func.sum(table.c.epoch)) if "epoch" in table.c else ()
        row = connection.execute(select(func.count(), *also).select_from(table)).one()
        found.append((table.name, tuple(int(value or 0) for value in row)))
    return found


def is_empty(connection: Connection, tables: Tables) -> bool:
    """Whether nothing has used this master yet."""
    return all(
        connection.execute(select(literal(1)).select_from(table).limit(1)).first() is None for table in parts(tables)
    )


def notes(connection: Connection, tables: Tables) -> list[tuple[str, str]]:
    """Of `meta`, what is about agents."""
    meta = tables.meta.c
    found = connection.execute(select(meta.name, meta.value).where(meta.name.like("quarantined:%")))
    return [(row.name, row.value) for row in found]


def write_notes(connection: Connection, tables: Tables, rows: Sequence[tuple[str, str]]) -> None:
    BulkInsert(tables.meta, ("name", "value"), key=("name",), replacing=True).run(connection, rows)


def _read(connection: Connection, tables: Tables, name: str) -> str | None:
    value: str | None = connection.execute(select(tables.meta.c.value).where(tables.meta.c.name == name)).scalar()
    return value


def _note(connection: Connection, tables: Tables, name: str, filling: Filling) -> None:
    write_notes(connection, tables, [(name, msgspec.json.encode(filling).decode())])
