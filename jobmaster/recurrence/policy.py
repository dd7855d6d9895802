"""What happens at the local times that a change of offset leaves out or repeats."""

from enum import StrEnum


class Gap(StrEnum):
    """A local time that does not exist, as the clocks went forward over it."""

    SHIFT = "shift"
    """Occurs at the first valid instant after it; several in one gap are one occurrence."""
    SKIP = "skip"
    """Does not occur."""


class Fold(StrEnum):
    """A local time that exists twice, as the clocks went back over it."""

    FIRST = "first"
    LAST = "last"
    BOTH = "both"


class Mark(StrEnum):
    """What a change of offset did to an occurrence."""

    GAP = "gap"
    """It was moved out of a gap."""
    FOLD_1 = "fold-1"
    """Its local time is repeated, and this is the first pass."""
    FOLD_2 = "fold-2"


REAL_TIME = (Gap.SKIP, Fold.BOTH)
"""The `auto` rule of what recurs within the hour or names every hour."""

TIME_OF_DAY = (Gap.SHIFT, Fold.FIRST)
"""The `auto` rule of everything else: a time of day occurs once a day."""
