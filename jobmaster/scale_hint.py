"""Scale hints: how many workers what waits would keep busy, for an autoscaler to go by. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleHint:
    """What there is to do, who is there for it, and how many workers there should be."""

    lanes: tuple[str, ...]
    ready: int
    """Due, and not claimed."""
    running: int
    oldest_ready_seconds: float
    workers: int
    """Live ones that serve one of the lanes and are not quiet."""
    slots: int
    """Theirs."""
    wanted: int
    """Workers."""


def wanted_workers(
    *,
    ready: int,
    running: int,
    oldest_seconds: float,
    workers: int,
    slots_per_worker: int,
    target_seconds: float,
    least: int,
    most: int,
) -> int:
    """As many as have slots for all that is ready or running, from `least` to `most`; but no more than there are while
    nothing has waited for longer than `target_seconds`."""
    needed = math.ceil((ready + running) / slots_per_worker)
    if oldest_seconds <= target_seconds:
        needed = min(needed, max(workers, math.ceil(running / slots_per_worker), 1 if ready else 0))
    return max(least, min(most, needed))
