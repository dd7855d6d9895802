"""What an application writes to have schedules in its code: a profile, or a decorator for a handler's only schedule.

Nothing here makes a schedule: the declarations are checked by `ClusterBuilder.build()` and reconciled with the master
at each start, by difference.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, TypeVar, Unpack, overload

from msgspec import Struct

from jobmaster.enqueue import ScheduleOptions
from jobmaster.handler import JobHandler
from jobmaster.recurrence import Recurrence
from jobmaster.worker.context import Data

Target = TypeVar("Target", bound=Callable[..., Any])
When = Recurrence | timedelta | str

MARK = "__jobmaster_schedule__"
"""The attribute under which `@scheduled` leaves its declaration."""


class Declaration(Struct, frozen=True):
    """A schedule as it is written in code."""

    handler: Any
    when: Any
    data: Any
    key: str | None
    options: Mapping[str, Any]


class Schedules:
    """Collects the schedules of one profile; their order means nothing."""

    def __init__(self) -> None:
        self.declared: list[Declaration] = []

    @overload
    def add(
        self,
        handler: type[JobHandler[Data]],
        when: When,
        data: Data | Mapping[str, Any] | None = None,
        *,
        key: str,
        **options: Unpack[ScheduleOptions],
    ) -> None: ...
    @overload
    def add(
        self,
        handler: Callable[..., Any] | str,
        when: When,
        data: Mapping[str, Any] | None = None,
        *,
        key: str,
        **options: Unpack[ScheduleOptions],
    ) -> None: ...
    def add(self, handler: Any, when: When, data: Any = None, *, key: str, **options: Unpack[ScheduleOptions]) -> None:
        """Declare a schedule: what `scheduler.recurring` takes. The key names it in the whole cluster."""
        self.declared.append(Declaration(handler, when, data, key, options))


class StaticProfile(ABC):
    """Declares schedules that live and die with the code. What is removed from it ends after `retire_after`, an hour
    unless set; what comes back goes on under its old key. Deployments with other profiles are left alone."""

    profile_id: ClassVar[str]
    """Names the profile, and owns its schedules: keep it when you rename the class."""

    @abstractmethod
    def configure(self, schedules: Schedules) -> None:
        """Add its schedules. Called once for each `build()`, so it should give the same each time."""


def scheduled(
    when: When, data: Any = None, *, key: str | None = None, **options: Unpack[ScheduleOptions]
) -> Callable[[Target], Target]:
    """Give a handler its one schedule, which belongs to the handler as to a profile of its name. Without `key` that
    name is its key, too. Goes over `@job`, or over the class."""
    declaration = Declaration(None, when, data, key, options)

    def mark(target: Target) -> Target:
        setattr(getattr(target, "__func__", target), MARK, declaration)
        return target

    return mark


def declaration_of(target: Any) -> Declaration | None:
    """What `@scheduled` left on a class or function itself, not on what it inherits from."""
    found = vars(getattr(target, "__func__", target)).get(MARK)
    return found if isinstance(found, Declaration) else None
