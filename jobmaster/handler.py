"""What an application writes: a handler class, or a function with `@job`.

Nothing here registers anything: a handler belongs to a cluster once `ClusterBuilder.add_handlers` has named it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, Generic, TypeVar, overload

from msgspec import Struct

from jobmaster.model.priority import Priority
from jobmaster.model.retry import Retry
from jobmaster.worker.context import Data, JobContext

Function = TypeVar("Function", bound=Callable[..., Any])

MARK = "__jobmaster_job__"
"""The attribute under which `@job` leaves its options on a function."""


class JobHandler(ABC, Generic[Data]):
    """Executes jobs of one name. Subclass it, name the type of the data, and write `execute`.

    A fresh instance serves each attempt: what it keeps in `self` is gone afterwards. The class attributes below are the
    handler's *definition*; what is left out comes from the cluster's defaults. Durations are timedeltas or seconds.
    """

    name: ClassVar[str | None] = None
    """The stored name. Jobs find their handler by it, so keep it when you rename the class; else it is the kebab-case
    class name: `SendWelcome` is `send-welcome`."""
    lane: ClassVar[str | None] = None
    priority: ClassVar[Priority | None] = None
    agent: ClassVar[str | None] = None
    """Binds all its jobs to one agent."""
    timeout: ClassVar[timedelta | float | None] = None
    """How long one run may take."""
    grace: ClassVar[timedelta | float | None] = None
    """How long a cancelled run may take to end."""
    retry: ClassVar[Retry | None] = None
    process: ClassVar[bool] = False
    """Run each attempt in a process of its own, which is killed if it does not end when it has to. For code that
    blocks, holds the interpreter or may crash; starting one takes about as long as importing the program."""
    at_most_once: ClassVar[bool] = False
    """Never run again after a recorded start, whatever happened."""
    max_crashes: ClassVar[int | None] = None
    max_snoozes: ClassVar[int | None] = None
    max_interrupts: ClassVar[int | None] = None
    unroutable_after: ClassVar[timedelta | float | None] = None
    """Fail jobs that no worker knew to execute for this long; unless given they wait for such a worker."""
    title: ClassVar[str | None] = None
    """The title of jobs that were enqueued without one."""
    version: ClassVar[int] = 1
    """Of the data. Raise it with a change that this code can't read the stored data of waiting jobs with, and write
    `upcast`. A process with an older version leaves the jobs of a newer one to others."""

    @classmethod
    def upcast(cls, data: Any, from_version: int) -> Any:
        """What an earlier version enqueued, as plain JSON values, in the form of this one: as plain values or as the
        declared type. Called in each run of such a job, before its data are checked."""
        raise NotImplementedError(f"{cls.__name__} has no upcast for data of version {from_version}")

    @abstractmethod
    def execute(self, job: JobContext[Data], /) -> Any:
        """Do the work; `async def`, or a plain `def`, which runs in a thread. What it returns is the job's result.

        An exception is a failed attempt, retried as the policy says; `RetryAfter`, `Snooze` and `Reject` say more."""


class JobOptions(Struct, frozen=True, kw_only=True):
    """What `@job` was given: the class attributes of a handler, for a function."""

    name: str | None = None
    lane: str | None = None
    priority: Priority | None = None
    agent: str | None = None
    timeout: timedelta | float | None = None
    grace: timedelta | float | None = None
    retry: Retry | None = None
    process: bool = False
    at_most_once: bool = False
    max_crashes: int | None = None
    max_snoozes: int | None = None
    max_interrupts: int | None = None
    unroutable_after: timedelta | float | None = None
    title: str | None = None
    version: int = 1
    upcast: Callable[[Any, int], Any] | None = None
    """As the class method of a handler class: data of an earlier version, and which."""


@overload
def job(function: Function, /) -> Function: ...
@overload
def job(
    *,
    name: str | None = None,
    lane: str | None = None,
    priority: Priority | None = None,
    agent: str | None = None,
    timeout: timedelta | float | None = None,
    grace: timedelta | float | None = None,
    retry: Retry | None = None,
    process: bool = False,
    at_most_once: bool = False,
    max_crashes: int | None = None,
    max_snoozes: int | None = None,
    max_interrupts: int | None = None,
    unroutable_after: timedelta | float | None = None,
    title: str | None = None,
    version: int = 1,
    upcast: Callable[[Any, int], Any] | None = None,
) -> Callable[[Function], Function]: ...
def job(function: Function | None = None, /, **options: Any) -> Function | Callable[[Function], Function]:
    """Mark a function or method as a handler, with the options a handler class has as attributes. It stays the function
    it was: call it in tests as any other.

    One parameter, the `JobContext`: it is enqueued like a class, `once_now(send_invoice, Invoice(...))`. Any other
    parameters: it is enqueued by `scheduler.call(send_invoice, number=7)`."""
    chosen = JobOptions(**options)

    def mark(marked: Function) -> Function:
        # A staticmethod or classmethod object hands attributes set on its function through, but not on itself.
        setattr(getattr(marked, "__func__", marked), MARK, chosen)
        return marked

    return mark if function is None else mark(function)


def options_of(target: Any) -> JobOptions | None:
    """What `@job` left on a function, if it did."""
    options = getattr(getattr(target, "__func__", target), MARK, None)
    return options if isinstance(options, JobOptions) else None
