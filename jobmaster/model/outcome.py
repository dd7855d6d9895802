"""Outcomes: what one run came to, and what the store makes of it.

The worker decides the outcome, since it holds the lease and knows the policy; a store only applies it, fenced by the
token. Delays are relative: the store adds them to its own clock.
"""

from enum import StrEnum

from msgspec import Struct

from jobmaster.model.states import FailReason


class RunOutcome(StrEnum):
    """How a run is recorded. The last two are written by the store, not by a worker."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRY_AT = "retry_at"
    SNOOZED = "snoozed"
    INTERRUPTED = "interrupted"
    LAPSED = "lapsed"
    """The lease ran out: the worker crashed, was paused or cut off."""
    CANCELLED = "cancelled"


class RunError(Struct, frozen=True, omit_defaults=True):
    """What a failed run raised, as text: no class is ever rebuilt from it."""

    type: str
    message: str = ""
    traceback: str = ""

    def line(self) -> str:
        """Type and first line of the message, at most 300 characters."""
        head = self.message.splitlines()[0] if self.message else ""
        return f"{self.type}: {head}"[:300] if head else self.type[:300]


class Succeeded(Struct, frozen=True, gc=False):
    """The handler returned; `result` is portable JSON, `None` where it returned nothing."""

    result: bytes | None = None


class Failed(Struct, frozen=True, gc=False):
    """The job ends here."""

    reason: FailReason
    error: RunError | None = None


class RetryAt(Struct, frozen=True, gc=False):
    """A failed attempt; the job is due again `after_us` microseconds after the store's now."""

    after_us: int
    error: RunError | None = None


class Snoozed(Struct, frozen=True, gc=False):
    """The handler asked to be run again later; no attempt is counted."""

    after_us: int


class Interrupted(Struct, frozen=True, gc=False):
    """The run was ended from outside (shutdown, lost trust); claimable at once, no attempt is counted."""


Outcome = Succeeded | Failed | RetryAt | Snoozed | Interrupted
