"""What the caller of a change believes the job to be: changed only if it still is that."""

from collections.abc import Iterable

from msgspec import Struct

from jobmaster.model.errors import JobConflict, OptionInvalid
from jobmaster.model.job import Job
from jobmaster.model.states import JobState

States = JobState | str | Iterable[JobState | str]
"""One state or several, by name or as they are."""


class Expectation(Struct, frozen=True):
    """A state of `states` (empty: any) and that version (None: any)."""

    states: frozenset[JobState] = frozenset()
    version: int | None = None

    @property
    def anything(self) -> bool:
        """Nothing is expected."""
        return not self.states and self.version is None

    def versions(self, job: Job) -> tuple[int] | None:
        """What a store is to compare with, for a job that was seen to be as expected."""
        return None if self.anything else (job.version,)

    def check(self, job: Job) -> None:
        """Raises `JobConflict` with what it is instead."""
        if self.states and job.state not in self.states:
            expected = " or ".join(sorted(self.states))
            raise JobConflict(job.id, f"it is {job.state}, not {expected}", "look at it again")
        if self.version is not None and job.version != self.version:
            raise JobConflict(job.id, f"it is at version {job.version}, not {self.version}", "look at it again")


def expectation(states: States | None, version: int | None) -> Expectation:
    """Raises `OptionInvalid`."""
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
        raise OptionInvalid("expected_version", version, "the `version` of a job as it was read")
    return Expectation(states_of("expected_state", states), version)


def states_of(option: str, given: States | None) -> frozenset[JobState]:
    """Raises `OptionInvalid`."""
    if given is None:
        return frozenset()
    wanted = [given] if isinstance(given, str) else given
    try:
        return frozenset(JobState(state) for state in wanted)
    except (ValueError, TypeError):
        raise OptionInvalid(option, given, f"of {', '.join(JobState)}") from None
