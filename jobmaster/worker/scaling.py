"""What a signal to have another number of slots says. Signals of one kind may overtake each other, so each says when it
was given, and the latest counts. It has the room of a job's id, so a lane stands in it by its digest."""

import time
from hashlib import blake2b

from msgspec import Struct

from jobmaster.contracts.values import Signal, SignalKind

MOST_SLOTS = 10_000


class Scale(Struct, frozen=True, order=True):
    at_ms: int
    slots: int
    lane: str
    """Its digest; empty: the lanes that share slots."""

    def of(self, lane: str) -> bool:
        """Whether that lane is meant."""
        return self.lane == _digest(lane)


def scale_signal(worker: str, slots: int, lane: str | None) -> Signal:
    """Have a worker run that many jobs at a time; of `lane`, if it has slots of its own there."""
    at_ms = time.time_ns() // 1_000_000
    return Signal(worker, SignalKind.SCALE, f"{at_ms:x}.{slots}.{'' if lane is None else _digest(lane)}")


def read_scale(signal: Signal) -> Scale | None:
    """What it says; None if it can't be read."""
    try:
        at, slots, lane = (signal.job_id or "").split(".")
        return Scale(int(at, 16), int(slots), lane)
    except ValueError:
        return None


def _digest(lane: str) -> str:
    return blake2b(lane.encode(), digest_size=6).hexdigest()
