"""What operators asked for, in SQL."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Select, or_, select, update

from jobmaster.contracts.operating import Operation, OperationState
from jobmaster.master.rules import begun, carried_on, stopped
from jobmaster.master.sql.bulk import BulkInsert
from jobmaster.master.sql.engine import Engine
from jobmaster.master.sql.part import SqlPart
from jobmaster.master.sql.tables import Tables

_entries = msgspec.json.Decoder(Operation)
_COLUMNS = ("id", "state", "node", "until_us", "finished_us", "entry")


class SqlOperations(SqlPart):
    def __init__(self, engine: Engine, tables: Tables) -> None:
        super().__init__(engine, tables)
        self._begin = BulkInsert(tables.operation, _COLUMNS, key=("id",))

    async def begin_operation(self, operation: Operation) -> Operation:
        def insert(connection: Connection) -> Operation:
            entry = begun(operation, self._engine.now_us(connection))
            self._begin.run(
                connection, [(entry.id, entry.state.value, "", 0, entry.finished_us, msgspec.json.encode(entry))]
            )
            stored = self._operation(connection, operation.id)
            assert stored is not None, operation.id
            return stored

        return await self._write(insert)

    async def take_operation(self, node: str, ttl_us: int) -> Operation | None:
        # Nearly always there is none, and then nothing is written.
        if await self._read(lambda connection: connection.execute(self._running.limit(1)).first(), at_once=True):
            return await self._write(lambda connection: self._take(connection, node, ttl_us))
        return None

    async def save_operation(self, operation: Operation, node: str) -> Operation | None:
        def save(connection: Connection) -> Operation | None:
            stored = self._operation(connection, operation.id, lock=True, node=node)
            return None if stored is None else self._store(connection, stored, operation)

        return await self._write(save)

    async def stop_operation(self, operation_id: str) -> Operation | None:
        def stop(connection: Connection) -> Operation | None:
            stored = self._operation(connection, operation_id, lock=True)
            if stored is None:
                return None
            return self._replace(connection, stopped(stored, self._engine.now_us(connection)))

        return await self._write(stop)

    async def operations(self, before_id: str | None, limit: int) -> list[Operation]:
        table = self._tables.operation.c
        query = select(table.entry).order_by(table.id.desc()).limit(max(limit, 0))
        if before_id is not None:
            query = query.where(table.id < before_id)
        return await self._read(
            lambda connection: [_entries.decode(row.entry) for row in connection.execute(query)], at_once=True
        )

    async def operation(self, operation_id: str) -> Operation | None:
        return await self._read(lambda connection: self._operation(connection, operation_id), at_once=True)

    @property
    def _running(self) -> Select[Any]:
        table = self._tables.operation.c
        return select(table.entry).where(table.state == OperationState.RUNNING.value).order_by(table.until_us, table.id)

    def _take(self, connection: Connection, node: str, ttl_us: int) -> Operation | None:
        table, now_us = self._tables.operation, self._engine.now_us(connection)
        free = self._running.where(or_(table.c.until_us < now_us, table.c.node == node)).limit(1)
        row = connection.execute(free.with_for_update(skip_locked=True)).first()
        if row is None:
            return None
        operation = _entries.decode(row.entry)
        mine = update(table).where(table.c.id == operation.id).values(node=node, until_us=now_us + ttl_us)
        connection.execute(mine)
        return operation

    def _operation(
        self, connection: Connection, operation_id: str, *, lock: bool = False, node: str | None = None
    ) -> Operation | None:
        table = self._tables.operation.c
        query = select(table.entry).where(table.id == operation_id)
        if node is not None:
            query = query.where(table.node == node)
        row = connection.execute(query.with_for_update() if lock else query).first()
        return None if row is None else _entries.decode(row.entry)

    def _store(self, connection: Connection, stored: Operation, given: Operation) -> Operation:
        return self._replace(connection, carried_on(stored, given, self._engine.now_us(connection)))

    def _replace(self, connection: Connection, operation: Operation) -> Operation:
        table = self._tables.operation
        values = {
            "state": operation.state.value,
            "finished_us": operation.finished_us,
            "entry": msgspec.json.encode(operation),
        }
        connection.execute(update(table).where(table.c.id == operation.id).values(values))
        return operation
