"""Slots: which claims run now and which wait, and how many more are worth claiming.

Lanes with slots of their own have a pool each; all others share the worker's. A pool never holds more than its slots
and its prefetch, and the prefetch follows the measured speed: 50 ms worth of starts, so nothing for long jobs, which
another worker could be running, and hundreds for short ones, whose claims would otherwise cost more than they do. Of
short ones it is as many as start while a few claims are answered, where those take longer: half of that is in stock
when the next one is sent.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from threading import Lock

from jobmaster.worker.lease import Lease
from jobmaster.worker.sharing import Sharing

PREFETCH_SECONDS = 0.05
PREFETCH_CLAIMS = 4
"""As many times as long as a claim took lately: how far the prefetch of short jobs reaches at least,"""
PREFETCH_LONGEST = 0.25
"""and at most, in seconds. What waits for a whole one goes back."""
SHORT_RUN_SECONDS = 0.01
SHORT_RUN_PREFETCH = 1_000
"""The ceiling for handlers quicker than that, where no setting says otherwise."""
MEMORY_SECONDS = 0.2
"""How long a measured speed counts."""
FULL_QUOTA_SHARE = 8
"""A lane that had nothing to give last time is asked for one part in this many, shared by all such lanes."""


class SuspectGate:
    """Lets at most one suspect run at a time, in all workers of a process: a crash is then its doing alone."""

    def __init__(self) -> None:
        self._lock = Lock()

    def enter(self) -> bool:
        return self._lock.acquire(blocking=False)

    def leave(self) -> None:
        self._lock.release()


class SlotPool:
    """The slots that some lanes share. All methods run on the worker's loop."""

    def __init__(
        self,
        lanes: tuple[str, ...],
        slots: int,
        ceiling: int | None,
        start: Callable[["SlotPool", Lease], None],
        freed: Callable[["SlotPool"], None],
        gate: SuspectGate,
        sharing: Sharing | None = None,
    ) -> None:
        """`sharing`: how its lanes divide a claim, where not alike."""
        self.lanes = lanes
        self.slots = slots
        self.busy = 0
        self.waiting: deque[Lease] = deque()
        self.suspects: deque[Lease] = deque()
        """Apart, since they wait for the gate and must hold nobody up."""
        self.starved = False
        """The last claim got less than it asked for: only a hint or a poll makes another one worthwhile."""
        self.prefetch = 0
        self._ceiling = ceiling
        self._start = start
        self._freed = freed
        self._gate = gate
        self._sharing = sharing
        self._rich: frozenset[str] = frozenset(lanes)
        self._vain: frozenset[str] = frozenset()
        """Lanes asked in vain since one of them last gave something."""
        self._turn = 0
        self._starts = 0
        self._run_seconds = 0.0
        self._claim_seconds = 0.0
        self._measured_at: float | None = None
        self._seen_starts = 0.0
        self._seen_seconds = 0.0
        self._full_since: float | None = None

    @property
    def room(self) -> int:
        """How many more claims it can hold."""
        crowd = max(0, len(self.suspects) - self.slots - self.prefetch)
        return max(0, self.slots + self.prefetch - self.busy - len(self.waiting) - crowd)

    @property
    def hungry(self) -> bool:
        """Whether it is time to claim: half the prefetch is used up, so that claims come in batches."""
        return self.busy + len(self.waiting) < self.slots + (self.prefetch + 1) // 2

    def add(self, leases: list[Lease]) -> None:
        """Take claims in, in their order, and run what there are slots for."""
        for lease in leases:
            (self.suspects if lease.job.suspect else self.waiting).append(lease)
        self.fill()

    def fill(self) -> None:
        """Run waiting claims while slots are free."""
        while self.busy < self.slots:
            if self.suspects and self._gate.enter():
                lease = self.suspects.popleft()
            elif self.waiting:
                lease = self.waiting.popleft()
            else:
                return
            self.busy += 1
            self._starts += 1
            self._start(self, lease)

    def freed(self, lease: Lease, seconds: float) -> None:
        """A slot came back after a run of `seconds`."""
        self.busy -= 1
        self._run_seconds += (seconds - self._run_seconds) * 0.05
        if lease.job.suspect:
            self._gate.leave()
        self.fill()
        self._freed(self)

    def overdue(self, before: float, suspects_before: float) -> list[Lease]:
        """Take out those claimed too long ago, so that another worker may run them."""
        found = []
        for queue, limit in ((self.waiting, before), (self.suspects, suspects_before)):
            while queue and queue[0].claimed_at <= limit:
                found.append(queue.popleft())
        return found

    def next_overdue(self, hold: float, hold_suspects: float) -> float:
        """When the next one of those that wait will have waited too long."""
        due = float("inf")
        for queue, seconds in ((self.waiting, hold), (self.suspects, hold_suspects)):
            if queue:
                due = min(due, queue[0].claimed_at + seconds)
        return due

    def clear(self) -> list[Lease]:
        """Take out all that wait."""
        found = [*self.waiting, *self.suspects]
        self.waiting.clear()
        self.suspects.clear()
        return found

    def quotas(self, limit: int) -> dict[str, int]:
        """How many to claim of each lane, together at most `limit`. Lanes that were full last time share what the
        others, asked for a little each in case they have something again, leave."""
        lanes = self.lanes
        if len(lanes) == 1:
            return {lanes[0]: limit}
        if self._sharing is not None:
            return self._shared(limit, self._sharing)
        self._turn += 1
        turned = [lanes[(self._turn + place) % len(lanes)] for place in range(len(lanes))]
        if limit <= len(lanes):
            return dict.fromkeys(turned[:limit], 1)
        poor = [lane for lane in turned if lane not in self._rich]
        rich = [lane for lane in turned if lane in self._rich]
        if not rich:
            poor, rich = [], turned
        quotas = dict.fromkeys(poor, max(1, limit // (FULL_QUOTA_SHARE * len(poor)))) if poor else {}
        share, rest = divmod(limit - sum(quotas.values()), len(rich))
        if share == 0:
            return dict.fromkeys(turned[:limit], 1)
        return quotas | {lane: share + (place < rest) for place, lane in enumerate(rich)}

    def _shared(self, limit: int, sharing: Sharing) -> dict[str, int]:
        poor = [lane for lane in self.lanes if lane not in self._rich]
        if len(poor) == len(self.lanes):
            poor = []
        # These are asked for a little each, as they may have something again; of small claims now and then, in turn.
        self._turn += 1
        each = max(1, limit // (FULL_QUOTA_SHARE * len(poor))) if poor else 1
        room = limit // 2 // each or int(self._turn % FULL_QUOTA_SHARE == 0)
        asked = [poor[(self._turn + place) % len(poor)] for place in range(min(len(poor), room))]
        left = limit - each * len(asked)
        quotas = sharing.divide(left, [lane for lane in self.lanes if lane not in poor]) if left else {}
        return quotas | dict.fromkeys(asked, each)

    def claimed(self, quotas: Mapping[str, int], got: Mapping[str, int], seconds: float = 0.0) -> None:
        """A claim was answered after `seconds`: remember which lanes have more."""
        self._claim_seconds += (seconds - self._claim_seconds) * 0.2
        full = frozenset(lane for lane, quota in quotas.items() if got.get(lane, 0) >= quota)
        # A small claim under a sharing leaves lanes out that have plenty.
        self._rich = full if self._sharing is None else (self._rich - quotas.keys()) | full
        self._vain = frozenset() if any(got.values()) else self._vain.union(quotas)
        self.starved = not self._rich and (len(quotas) == len(self.lanes) or len(self._vain) == len(self.lanes))
        if self.starved:
            # Whatever comes next may come to any lane: each is asked again, and no other is taken for poor because
            # the first one to be asked happened to have something.
            self._vain = frozenset()
            self._rich = frozenset(self.lanes)

    def measure(self, now: float) -> None:
        """Bring the prefetch up to date. Time without work says nothing about speed and counts little."""
        if self._measured_at is None:
            self._measured_at = now
            return
        elapsed = now - self._measured_at
        if self.busy < self.slots and not self.waiting:
            elapsed = min(elapsed, PREFETCH_SECONDS)
        if elapsed <= 0:
            return
        fade = math.exp(-elapsed / MEMORY_SECONDS)
        self._seen_starts = self._seen_starts * fade + self._starts
        self._seen_seconds = self._seen_seconds * fade + elapsed
        self._starts = 0
        self._measured_at = now
        ahead = self._seen_starts / self._seen_seconds * self._prefetch_seconds()
        self.prefetch = min(self._prefetch_ceiling(), int(ahead))

    def _prefetch_seconds(self) -> float:
        if self._run_seconds >= SHORT_RUN_SECONDS:
            return PREFETCH_SECONDS
        return max(PREFETCH_SECONDS, min(PREFETCH_LONGEST, PREFETCH_CLAIMS * self._claim_seconds))

    def _prefetch_ceiling(self) -> int:
        if self._ceiling is not None:
            return self._ceiling
        return max(2 * self.slots, SHORT_RUN_PREFETCH if self._run_seconds < SHORT_RUN_SECONDS else 0)

    def saturation(self, now: float) -> float | None:
        """Seconds, once, when a time in which all slots were taken and more waited has ended."""
        if self.busy >= self.slots and not self.starved:
            if self._full_since is None:
                self._full_since = now
        elif self.starved and self._full_since is not None:
            seconds, self._full_since = now - self._full_since, None
            return seconds
        return None
