"""What a user says about a new job: the options of every enqueue call, and `Enqueue`, one item of a bulk."""

import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from jobmaster.model.errors import OptionInvalid
from jobmaster.model.priority import Priority
from jobmaster.model.retry import Retry
from jobmaster.model.terms import Misfire, Overlap


class CommonOptions(TypedDict, total=False):
    """What each job may be given, whoever makes it. What is left out, or None, is the handler's."""

    priority: Priority | str | None
    """A `Priority` or its name, in any case."""
    lane: str | None
    agent: str | None
    """The agent to use; without it the handler's, the lane's, or the least loaded one."""
    timeout: timedelta | float | None
    """How long one run may take; a number means seconds."""
    retry: Retry | None
    title: str | None
    """For people; at most 200 characters."""
    tags: Sequence[str] | None
    """At most ten."""
    metadata: Mapping[str, Any] | None
    """Portable JSON, kept with the job and searchable."""


class ScheduleOptions(CommonOptions, total=False):
    """Options of `recurring` and of schedules in code: for each of the jobs, and for the ticks."""

    misfire: Misfire | str | None
    """What runs of the ticks that were missed while nobody planned: "latest" (unless given), "skip", or "all(10)" for
    the latest ten."""
    overlap: Overlap | str | None
    """What a tick does while the job before has not ended: "allow" (unless given), "skip", "queue" or
    "cancel_previous"."""
    jitter: timedelta | float | None
    """Each job is due up to this much after its tick, drawn once; a number means seconds."""
    start_after: datetime | None
    """No tick before it; an interval counts from it."""
    end_before: datetime | None
    """No tick at that instant or later."""


class Options(CommonOptions, total=False):
    """Options of `once_now`, `once_at`, `once_after` and `Enqueue`."""

    id: str | UUID | None
    """A caller-given id: enqueuing it again changes nothing. Any UUID form."""
    expires_at: datetime | None
    """The job ends `failed(expired)` if it was not started by then."""
    durability: Literal["agent", "master"] | None
    """"master": the job is in the master's database, too, when the call returns."""


OPTIONS = tuple(Options.__annotations__)

SCHEDULE_OPTIONS = tuple(ScheduleOptions.__annotations__)


def check_known(options: Mapping[str, object], known: Sequence[str] = OPTIONS) -> None:
    """Raise `OptionInvalid` for an option there is not, with the nearest one there is."""
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(str(name)[:80], known, n=1)
            hint = f"{near[0]!r}" if near else f"one of {', '.join(known)}"
            raise OptionInvalid(str(name), options[name], f"no such option here; {hint} is meant perhaps")


class Enqueue:
    """One item of `Scheduler.many`: what `once_now` takes, or with `when` what `once_at` (a datetime) and `once_after`
    (a timedelta) take."""

    __slots__ = ("data", "handler", "options", "when")

    def __init__(
        self,
        handler: Any,
        data: Any = None,
        *,
        when: datetime | timedelta | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.handler = handler
        self.data = data
        self.when = when
        self.options = options

    def __repr__(self) -> str:
        # Data may hold what must not reach a log.
        return f"Enqueue({getattr(self.handler, '__name__', self.handler)!s}, when={self.when})"
