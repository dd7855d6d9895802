"""Priority: which of two ready jobs of one lane goes first."""

from enum import IntEnum, StrEnum


class Priority(IntEnum):
    """The rank of a job inside its lane. Stored as the number; 0 is claimed first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3
    VERY_LOW = 4


class LaneOrder(StrEnum):
    """Which of the lanes that share a worker's slots goes first, while several have jobs."""

    WEIGHTED = "weighted"
    """None: each gets its share."""
    STRICT = "strict"
    """The first named; those behind it together get an eighth."""
