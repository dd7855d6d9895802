"""Job ids: UUIDv7 made by the client, so that every write can be repeated safely and ids sort by creation time.

An id is the lower-case, 36-character text form everywhere. Inside one process ids strictly increase, across threads and
across clock steps back: the pair (millisecond, counter) is one number that never falls, and a counter that overflows
carries into the millisecond. Ids are unique, not secret; knowing one must never grant anything.
"""

import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Callable

from jobmaster.model.errors import NameInvalid, OptionInvalid

JobId = str
"""Canonical UUID text."""

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HYPHENATED = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ANY_FORM = re.compile(rf"(?:urn:uuid:)?({_HYPHENATED})|\{{({_HYPHENATED})\}}|([0-9a-f]{{32}})", re.IGNORECASE)
_MILLISECONDS = 1 << 48
_VARIANT = 0x8000_0000_0000_0000


def wall_clock_ms() -> int:
    """Milliseconds since 1970 by this host's clock."""
    return time.time_ns() // 1_000_000


class IdFactory:
    """Makes ids from a clock and a source of random bits; both are parameters so that a simulation repeats exactly."""

    __slots__ = ("_bits", "_last", "_lock", "_ms", "_now_ms", "_prefix")

    def __init__(self, now_ms: Callable[[], int] = wall_clock_ms, rng: random.Random | None = None) -> None:
        self._now_ms = now_ms
        # os.urandom per id costs four times as much as a generator seeded from it once, and ids need not be secret.
        self._bits = (rng or random.Random(os.urandom(32))).getrandbits  # noqa: S311 - unique, not secret
        self._lock = threading.Lock()
        self._last = 0
        self._ms = -1
        self._prefix = ""

    def reseed(self) -> None:
        """Take random bits of one's own, and a lock that no vanished thread holds: what a forked child must do."""
        self._lock = threading.Lock()
        self._bits = random.Random(os.urandom(32)).getrandbits  # noqa: S311 - unique, not secret

    def new(self) -> JobId:
        """An id greater than every one this factory gave before."""
        with self._lock:
            last = self._now_ms() << 12
            if last <= self._last:
                last = self._last + 1
            self._last = last
            ms = last >> 12
            if ms != self._ms:
                self._ms = ms
                self._prefix = f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7"
            prefix = self._prefix
            tail = self._bits(62) | _VARIANT
        return "%s%03x-%04x-%012x" % (prefix, last & 0xFFF, tail >> 48, tail & 0xFFFF_FFFF_FFFF)  # noqa: UP031 - faster


_default = IdFactory()
new_id: Callable[[], JobId] = _default.new
"""A new job id, greater than every one made in this process before; safe across threads and forks."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_default.reseed)


def floor_id(us: int) -> JobId:
    """The smallest UUIDv7 of the millisecond that holds this instant (µs since 1970), for paging by time."""
    ms = min(max(us // 1_000, 0), _MILLISECONDS - 1)
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7000-8000-000000000000"


def id_time_us(job_id: JobId) -> int | None:
    """The instant in an id, in µs to the millisecond; `None` for versions without one (4, say).

    Only for paging and display: a caller chooses the ids of its jobs, so nothing may be decided by the age in one.
    """
    return int(job_id[:8] + job_id[9:13], 16) * 1_000 if job_id[14] in "78" else None


def occurrence_id(schedule: str, tick_us: int) -> JobId:
    """The id of the one job of a schedule's tick: UUIDv8, equal in every process, ordered by the tick's millisecond.

    Raises `OptionInvalid` for a tick before 1970 or after the year 10889, the range of the 48 bits.
    """
    ms = tick_us // 1_000
    if not 0 <= ms < _MILLISECONDS:
        raise OptionInvalid("tick_us", tick_us, "microseconds since 1970, up to the year 10889")
    digest = hashlib.blake2b(f"{tick_us}:{schedule}".encode(), digest_size=16).hexdigest()
    variant = "89ab"[int(digest[3], 16) & 3]
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-8{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"


def parse_id(text: object, kind: str = "job id") -> JobId:
    """The canonical form of any UUID text (upper case, braces, `urn:uuid:`, no hyphens), of any version.

    Raises `NameInvalid` for anything else.
    """
    if isinstance(text, str):
        if _CANONICAL.fullmatch(text):
            return text
        found = _ANY_FORM.fullmatch(text)
        if found is not None:
            digits = next(group for group in found.groups() if group).replace("-", "").lower()
            return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    raise NameInvalid(kind, text, "a UUID such as '0190163d-8694-739b-aea5-966c26f8ad91'")
