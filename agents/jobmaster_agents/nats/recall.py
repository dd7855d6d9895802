"""Recall: what this process itself wrote to the stream of outcomes just now, so that it need not be read back.

It is only a copy, and counts as long as the newest of it stands in the stream where it was written: a stream that was
emptied, or set back and written to again, has another record there, or none.
"""

import threading
from bisect import bisect_right, insort

from msgspec import Struct

from jobmaster_agents.nats.records import Record

MOST_BYTES = 8_000_000
LEAST_BYTES = 200
"""What a record takes here, however small it is on the wire."""


class Recalled(Struct, frozen=True, gc=False):
    """A record as it was accepted."""

    seq: int
    nonce: int
    size: int
    fact: Record | None
    """None: it says nothing to the master."""


class Recall:
    """What a handle and its companion wrote, from when somebody first asked for it. Of what is too much the later part
    is left out: the earlier is asked for first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: dict[int, Recalled] = {}
        self._seqs: list[int] = []
        """Of what is kept, in order: sorted anew at every look, tens of thousands of them cost more than the jobs."""
        self._wanted = False
        self._lock = threading.Lock()

    def note(self, seq: int, record: Record, size: int) -> None:
        """It was accepted there."""
        if not self._wanted:
            return
        size = max(size, LEAST_BYTES) if record.kind else LEAST_BYTES
        with self._lock:
            if self._bytes + size <= self._most_bytes and seq not in self._kept:
                self._kept[seq] = Recalled(seq, record.nonce, size, record if record.kind else None)
                insort(self._seqs, seq)
                self._bytes += size

    def forget(self, cursor: int) -> None:
        """Those up to there are not asked for any more."""
        self._wanted = True
        with self._lock:
            end = bisect_right(self._seqs, cursor)
            for seq in self._seqs[:end]:
                self._bytes -= self._kept.pop(seq).size
            del self._seqs[:end]

    def first(self, facts: int, until: int) -> list[Recalled]:
        """By sequence, those up to `until`, as far as the fact of that number."""
        found = []
        with self._lock:
            for seq in self._seqs:
                if seq > until or not facts:
                    break
                one = self._kept[seq]
                found.append(one)
                facts -= one.fact is not None
        return found

    @property
    def newest(self) -> Recalled | None:
        with self._lock:
            return self._kept[self._seqs[-1]] if self._seqs else None

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._seqs.clear()
            self._bytes = 0
