"""Parts: how a history is cut by the time that is in job ids, so that what is old is dropped and not deleted. Pure.

In order of ids there is a first part of all that is oldest, then one after another of some width, then the one *ahead*,
which the next cut ends, and behind `FAR` one of ids that tell no time: those that callers made at random.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from jobmaster.contracts.entries import Expiry

FAR = "04000000-0000-0000-0000-000000000000"
"""The year 2109. Of ids made at random 98 in 100 are above, and few enough below to be no trouble."""

SHARE = 10
"""A part is so small a share of the shortest time that anything is kept: it goes when the last in it may go, so what is
in it stays up to that much longer."""
LEAST_US = 3_600_000_000
"""But never less, since each part costs every look over the whole history some time."""


class Part(Struct, frozen=True):
    """Ids from `since` (None: any) up to `until`."""

    since: str | None
    until: str


def first_id(at_us: int) -> str:
    """The lowest id of that millisecond."""
    ms = max(at_us, 0) // 1_000
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-0000-0000-000000000000"


def time_us(job_id: str) -> int:
    """When an id that tells a time was made."""
    return (int(job_id[:8], 16) << 16 | int(job_id[9:13], 16)) * 1_000


def shortest_us(kept: Sequence[tuple[Expiry, int]]) -> int | None:
    """The shortest time that any job is kept; None where all are kept for ever."""
    return min((keep_us for which, keep_us in kept if which.states), default=None)


def cut_at(parts: Sequence[Part], now_us: int, keep_us: int) -> str | None:
    """Where to end the part ahead; None as long as the one before it has room for half a width."""
    width = max(keep_us // SHARE, LEAST_US)
    since = parts[-1].since
    begins_us = 0 if since is None else time_us(since)
    return first_id(max(begins_us, now_us) + width) if begins_us < now_us + width // 2 else None


def old(parts: Sequence[Part], now_us: int, keep_us: int) -> list[Part]:
    """Parts whose jobs may all be forgotten, but for those that ended late or are kept longer."""
    return [part for part in parts[:-1] if time_us(part.until) <= now_us - keep_us]


Span = tuple[str | None, str]
"""From one id up to another: whole parts."""


def next_fold(old: Sequence[Part], answers: Mapping[Span, bool]) -> Span | None:
    """Which old parts to make one part of, or which one to write anew; None if nothing is left to do.

    `answers`: what was tried lately, and whether it was done; else too many jobs had to stay. Then the later part
    stands alone, and those that follow are joined to it."""
    base = 0
    for at in range(1, len(old)):
        together = (old[base].since, old[at].until)
        if together not in answers:
            return together
        base = at
        alone = (old[at].since, old[at].until)
        if alone not in answers:
            return alone
    return None
