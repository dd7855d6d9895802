"""What operators asked for, in memory."""

from jobmaster.contracts.operating import Operation, OperationState
from jobmaster.master.memory.tables import MemoryPart
from jobmaster.master.rules import begun, carried_on, stopped


class MemoryOperations(MemoryPart):
    async def begin_operation(self, operation: Operation) -> Operation:
        with self._rows() as rows:
            stored = rows.operations.setdefault(operation.id, (begun(operation, self._clock.wall_us()), "", 0))
            return stored[0]

    async def take_operation(self, node: str, ttl_us: int) -> Operation | None:
        with self._rows() as rows:
            now_us = self._clock.wall_us()
            found = sorted(rows.operations.items(), key=lambda item: (item[1][2], item[0]))
            for operation_id, (operation, holder, until_us) in found:
                if operation.state is OperationState.RUNNING and (holder == node or until_us < now_us):
                    rows.operations[operation_id] = (operation, node, now_us + ttl_us)
                    return operation
            return None

    async def save_operation(self, operation: Operation, node: str) -> Operation | None:
        with self._rows() as rows:
            stored, holder, until_us = rows.operations.get(operation.id, (None, "", 0))
            if stored is None or holder != node:
                return None
            now_us = self._clock.wall_us()
            after = carried_on(stored, operation, now_us)
            rows.operations[operation.id] = (after, node, until_us)
            return after

    async def stop_operation(self, operation_id: str) -> Operation | None:
        with self._rows() as rows:
            if operation_id not in rows.operations:
                return None
            stored, holder, until_us = rows.operations[operation_id]
            after = stopped(stored, self._clock.wall_us())
            rows.operations[operation_id] = (after, holder, until_us)
            return after

    async def operations(self, before_id: str | None, limit: int) -> list[Operation]:
        with self._rows() as rows:
            ids = sorted((one for one in rows.operations if before_id is None or one < before_id), reverse=True)
            return [rows.operations[one][0] for one in ids[: max(limit, 0)]]

    async def operation(self, operation_id: str) -> Operation | None:
        with self._rows() as rows:
            return rows.operations.get(operation_id, (None, "", 0))[0]
