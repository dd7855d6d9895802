"""Operator: carries out what was asked for of many jobs, a page at a time.

The operation is on the master with how far it is, and belongs to one process for some seconds at a time: if that one
ends, another goes on where it was. The page in between was noted before it was begun: which of its jobs were changed is
seen by what they are now, and counted; the others are looked at again.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

import structlog
from msgspec.structs import replace

from jobmaster.contracts.clock import Clock
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.operating import Operation, OperationState, narrowed, selects
from jobmaster.contracts.values import JobFilter, Page
from jobmaster.model.errors import AgentUnreachable, OptionInvalid
from jobmaster.model.job import Job
from jobmaster.store_time import StoreTime
from jobmaster.telemetry.failpoints import failpoint

PAGE = 500
POLL_SECONDS = 2.0
TERM_SECONDS = 6.0
"""How long an operation is one process's since it was last looked at."""
TURN_SECONDS = 0.5
"""How long one that has to wait keeps the others waiting."""

_log = structlog.get_logger("jobmaster.operator")


class Deeds(Protocol):
    """How jobs are found and changed, on the master and on all agents."""

    async def read(self, where: JobFilter, cursor: str | None, limit: int) -> tuple[Page, tuple[str, ...]]:
        """A page, and the agents that did not answer."""
        ...

    async def carry_out(self, operation: Operation, jobs: Sequence[Job], now_us: int) -> int:
        """Do to these what is asked for; how many were changed. Raises what the stores raise; may be repeated."""
        ...

    async def carried_out(self, operation: Operation) -> Collection[str]:
        """Those of its pending jobs to which it has been done."""
        ...


class Operator:
    """One page of one operation per pass; several operations take turns."""

    def __init__(
        self,
        master: MasterStore,
        deeds: Deeds,
        *,
        master_time: StoreTime,
        node: str,
        clock: Clock,
    ) -> None:
        self._master = master
        self._deeds = deeds
        self._master_time = master_time
        self._node = node
        self._clock = clock
        self._due: dict[str, float] = {}
        """Monotonic: when the next page of an operation may begin, where it has a rate."""

    async def run(self) -> float:
        """One pass."""
        operation = await self._master.take_operation(self._node, round(TERM_SECONDS * 1e6))
        if operation is None:
            self._due.clear()
            return POLL_SECONDS
        wait = self._due.get(operation.id, 0.0) - self._clock.mono()
        if wait > 0:
            return min(wait, TURN_SECONDS)
        try:
            after = await self._page(operation)
        except OptionInvalid as error:
            after = replace(operation, state=OperationState.FAILED, note=str(error))
        stored = await self._master.save_operation(after, self._node)
        failpoint("operator.saved")
        if stored is not None and stored.state is not OperationState.RUNNING:
            _log.info(
                "operator.ended",
                operation=stored.id,
                kind=str(stored.kind),
                state=str(stored.state),
                changed=stored.changed,
                skipped=stored.skipped,
                who=stored.who,
            )
        return 0.0

    async def _page(self, operation: Operation) -> Operation:
        """How far it is after the next page."""
        terms, rate = operation.terms, operation.terms.per_second
        where = narrowed(operation.kind, terms)
        if where is None:
            return replace(operation, state=OperationState.DONE)
        limit = PAGE if rate is None else max(1, min(PAGE, int(rate)))
        page, unreachable = await self._deeds.read(where, operation.cursor, limit)
        if unreachable:
            raise AgentUnreachable(unreachable[0], "it did not answer", f"operation {operation.id} waits for it")
        meant = [job for job in page.jobs if selects(operation.kind, terms, job, operation.created_us)]
        if operation.pending:
            # Somebody died, or could not reach a store, in the middle of this page.
            done = await self._deeds.carried_out(operation)
            meant = [job for job in meant if job.id not in done]
            left = {job_id for job_id, _ in operation.pending}.difference(done, (job.id for job in meant))
            changed, skipped = operation.changed + len(done), operation.skipped + len(left)
            operation = replace(operation, changed=changed, skipped=skipped)
        operation = replace(operation, pending=tuple((job.id, job.version) for job in meant))
        if meant:
            stored = await self._master.save_operation(operation, self._node)
            if stored is None or stored.state is not OperationState.RUNNING:
                return replace(operation, pending=())
        now_us = await self._master_time.fresh_us()
        changed = await self._deeds.carry_out(operation, meant, now_us) if meant else 0
        failpoint("operator.page_done")
        if rate is not None:
            self._due[operation.id] = self._clock.mono() + len(meant) / rate
        return replace(
            operation,
            cursor=page.cursor,
            pending=(),
            seen=operation.seen + len(page.jobs),
            changed=operation.changed + changed,
            skipped=operation.skipped + len(meant) - changed,
            state=OperationState.RUNNING if page.cursor is not None else OperationState.DONE,
        )
