"""Priority: which of two ready jobs of one lane goes first."""

from enum import IntEnum


class Priority(IntEnum):
    """The rank of a job inside its lane. Stored as the number; 0 is claimed first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3
    VERY_LOW = 4
