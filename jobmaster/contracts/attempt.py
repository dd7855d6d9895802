"""Attempt: a call on the master that somebody waits for, for a limited time.

Who gives up has to know whether the call may still be applied. So the two agree: a store asks `may_commit` right before
it commits, and from then on nobody can give up and be sure. Both happen on one event loop, so no lock is needed.
"""

from contextvars import ContextVar


class Attempt:
    """One call, between its caller and the store."""

    def __init__(self) -> None:
        self._given_up = False
        self._committing = False

    def begin_commit(self) -> bool:
        """For the store: whether it may commit. From a `True` on the call counts as possibly applied."""
        if self._given_up:
            return False
        self._committing = True
        return True

    def give_up(self) -> bool:
        """For the caller: whether the call is certainly not applied, and never will be."""
        self._given_up = True
        return not self._committing


waited_for: ContextVar[Attempt | None] = ContextVar("waited_for", default=None)
"""Set by who limits a call's time, read by the store that runs it."""


def may_commit() -> bool:
    """Whether the call under way may commit: nobody limits its time, or who does still waits."""
    attempt = waited_for.get()
    return attempt is None or attempt.begin_commit()
