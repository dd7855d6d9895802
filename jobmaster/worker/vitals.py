"""What a worker tells of the process that it runs in."""

import os


def resident_bytes() -> int | None:
    """The memory of this process that is in use, as the system counts it; None where it does not say."""
    try:
        with open("/proc/self/statm", "rb") as pages:
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
