"""Terms: what becomes of a schedule's ticks that can't simply run at their time. Pure values, stored as compact JSON.

A tick is *missed* once it is later than `MISFIRE_US` when it is looked at: before that it is merely a little late, as
everything that polls is, and runs.
"""

from enum import StrEnum

import msgspec
from msgspec import Struct

MISFIRE_US = 10_000_000
MOST_ALL = 10_000
"""The largest catch-up that can be asked for."""


class Misfire(StrEnum):
    """What runs of the ticks that were missed."""

    SKIP = "skip"
    """None of them."""
    LATEST = "latest"
    """The latest one, unless a later tick is due in time."""
    ALL = "all"
    """The latest `most` of them, oldest first."""


class Overlap(StrEnum):
    """What a tick does while the job of the tick before has not ended."""

    ALLOW = "allow"
    """It runs beside it."""
    SKIP = "skip"
    """It is passed over, and a skipped occurrence says so."""
    QUEUE = "queue"
    """It waits for its end. Ticks that become too late meanwhile are missed ones."""
    CANCEL_PREVIOUS = "cancel_previous"
    """It cancels that job, then runs."""


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one schedule. Times are microseconds UTC."""

    misfire: Misfire = Misfire.LATEST
    most: int = 1
    """With `all`: how many at most."""
    overlap: Overlap = Overlap.ALLOW
    jitter_us: int = 0
    """Each tick's job is due up to this much after it: always the same for the same tick."""
    start_us: int | None = None
    """No tick before."""
    end_us: int | None = None
    """No tick at this instant or later."""

    def encode(self) -> bytes:
        """Compact JSON; `{}` for the defaults."""
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder(order="sorted")
_terms = msgspec.json.Decoder(Terms)
_DEFAULT = Terms()


def decode_terms(raw: bytes | None) -> Terms:
    """The terms a store gave back. Raises `msgspec.DecodeError` for what can't be read."""
    return _DEFAULT if raw is None or raw == b"{}" else _terms.decode(raw)
