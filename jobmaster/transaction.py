"""Transaction: jobs that exist if, and only if, the caller's own transaction commits."""

import asyncio
from typing import TYPE_CHECKING, Any

from jobmaster.agents_open import Agents
from jobmaster.client.sending import TransactionSending
from jobmaster.client.writing import Writing
from jobmaster.enqueuing import Enqueuing
from jobmaster.listeners import Listeners
from jobmaster.registry import Registry

if TYPE_CHECKING:
    from jobmaster.scheduler import Scheduler


class Transaction(Enqueuing):
    """Enqueues by a connection of the caller's, inside the transaction open there.

    Jobs and whatever else that transaction writes are committed together or not at all. Until then nobody sees the
    jobs, and a handle's `result` waits for nothing. They go straight to their agent, however late they are due. An
    error of an enqueue leaves the transaction as a failed statement does: to be rolled back.

    Workers find the jobs by polling, at most 1.25 seconds after the commit; `notify_after_commit` wakes them at once.
    With a SQLAlchemy `AsyncSession` its commit does that by itself.
    """

    def __init__(
        self,
        scheduler: "Scheduler",
        registry: Registry,
        writing: Writing,
        connection: Any,
        agents: Agents,
        listeners: Listeners,
    ) -> None:
        self._of = scheduler
        self._registry = registry
        self._sending = TransactionSending(connection, agents, listeners, self._wake)
        self._writing = writing.by_way_of(self._sending.write)
        self._waking: set[asyncio.Task[None]] = set()

    async def notify_after_commit(self) -> None:
        """To be called once the transaction was committed: the workers look for its jobs now. A hint, and harmless
        where there is nothing to find."""
        await self._sending.committed()

    def _wake(self) -> None:
        task = asyncio.get_running_loop().create_task(self._sending.committed())
        # The loop holds tasks weakly.
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    @property
    def _scheduler(self) -> "Scheduler":
        return self._of

    def _now_us(self) -> int:
        return self._of._now_us()  # noqa: SLF001 - one family
