"""JobHandle: what an enqueue gives back."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from jobmaster.scheduler import Scheduler
    from jobmaster.views import CancelResult, JobInfo


class JobHandle:
    """One enqueued job: its id, and its scheduler to ask about it. Cheap; make one any time with `scheduler.handle`."""

    __slots__ = ("_scheduler", "agent", "id")

    def __init__(self, job_id: str, scheduler: "Scheduler", agent: str | None = None) -> None:
        self.id = job_id
        """Canonical UUID text."""
        self.agent = agent
        """The agent it was put on; None if it is held on the master."""
        self._scheduler = scheduler

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - a timeout here is an answer
        """What the handler returned, as JSON values, once the job has succeeded. Raises `JobFailed`, `JobCancelled`,
        or after `timeout` seconds `ResultTimeout`; the job goes on then."""
        return await self._scheduler.result(self.id, timeout, near=self.agent)

    async def refresh(self) -> "JobInfo":
        """The job as it stands. Raises as `Scheduler.get`."""
        return await self._scheduler.get(self.id)

    async def cancel(self) -> "CancelResult":
        """As `Scheduler.cancel`."""
        return await self._scheduler.cancel(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, agent={self.agent!r})"


class JobHandles(Sequence[JobHandle]):
    """The handles of a bulk, in its order: ids, with a handle made when one is asked for."""

    __slots__ = ("_agents", "_scheduler", "ids")

    def __init__(self, ids: Sequence[str], agents: Sequence[str | None], scheduler: "Scheduler") -> None:
        self.ids = ids
        self._agents = agents
        self._scheduler = scheduler

    @overload
    def __getitem__(self, index: int) -> JobHandle: ...
    @overload
    def __getitem__(self, index: slice) -> "JobHandles": ...
    def __getitem__(self, index: int | slice) -> "JobHandle | JobHandles":
        if isinstance(index, slice):
            return JobHandles(self.ids[index], self._agents[index], self._scheduler)
        return JobHandle(self.ids[index], self._scheduler, self._agents[index])

    def __iter__(self) -> Iterator[JobHandle]:
        for job_id, agent in zip(self.ids, self._agents, strict=True):
            yield JobHandle(job_id, self._scheduler, agent)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"JobHandles({len(self.ids):,})"
