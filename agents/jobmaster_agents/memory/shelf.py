"""The shelf: the jobs here, and every order they are looked for in.

A row stands in the orders that its place calls for, and in no other; whoever changes one goes through `set`, so that
a row and its orders can't disagree.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from heapq import heapify, heappop, heapreplace

from jobmaster.model.job import Job
from jobmaster_agents.memory.line import Line
from jobmaster_agents.memory.order import Order


class Place(StrEnum):
    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"
    PARKED = "parked"
    """Ready, but no worker here knows its handler."""


class Row:
    """A job here, with what only its store knows of it."""

    __slots__ = ("first", "job", "last_digest", "last_token", "leased_until_us", "place", "seq")

    def __init__(self, job: Job, place: Place, seq: int) -> None:
        self.job = job
        self.first = job
        """As it was put: what a repeated put is compared with, whatever was amended since."""
        self.place = place
        self.seq = seq
        """Its place in line within a priority."""
        self.leased_until_us = 0
        self.last_token = 0
        self.last_digest = 0
        """The last lease that ended, and what it came to."""


class Shelf:
    """All rows, by id and in line. `on_ready` is told the lane of every job that becomes ready."""

    def __init__(self, on_ready: Callable[[str], None]) -> None:
        self._on_ready = on_ready
        self._seq = 0
        self.rows: dict[str, Row] = {}
        self.order = Order()
        self.delayed: Line[tuple[int, int]] = Line()
        """By (due, seq)."""
        self.expiring: Line[int] = Line()
        """Waiting jobs by `expires_us`."""
        self.leases: Line[int] = Line()
        """By the end of the lease."""
        self.parked: dict[str, Line[int]] = {}
        """Handler → by seq."""
        self.held_by: dict[str, set[str]] = {}
        """Worker → ids it has leased."""
        self.counts: dict[str, Counter[Place]] = {}
        self._ready: dict[str, dict[str, Line[tuple[int, int]]]] = {}
        """Lane → handler → by (priority, seq). A line per handler, so that a head of jobs nobody here can run costs
        a claim nothing."""
        self._due: dict[str, Line[int]] = {}
        """Lane → ready jobs by due time."""

    def next_seq(self) -> int:
        """A place behind everybody."""
        self._seq += 1
        return self._seq

    def add(self, row: Row) -> None:
        """The id must not be here."""
        self.rows[row.job.id] = row
        self.order.add(row.job.id)
        self._enter(row)

    def set(self, row: Row, job: Job, place: Place, seq: int | None = None) -> None:
        """The row holds that job, stands there, and keeps its place in line unless given another."""
        self._leave(row)
        row.job = job
        row.place = place
        if seq is not None:
            row.seq = seq
        self._enter(row)

    def prolong(self, row: Row, job: Job, until_us: int) -> None:
        """A leased row's record and the end of its lease, the only change that moves it in no other order."""
        row.job = job
        row.leased_until_us = until_us
        self.leases.put(until_us, job.id)

    def remove(self, row: Row) -> None:
        self._leave(row)
        self.order.remove(row.job.id)
        del self.rows[row.job.id]

    def in_line(self, lane: str, handlers: frozenset[str]) -> Iterator[Row]:
        """Ready jobs of a lane in the order they are to be handed out. Whatever is yielded must have left the ready
        jobs before the next is asked for."""
        # Kept by hand: a line that runs empty leaves the shelf.
        lines = {handler: line for handler, line in self._ready.get(lane, {}).items() if handler in handlers}
        heads = [(*first, handler) for handler, line in lines.items() if (first := line.first()) is not None]
        heapify(heads)
        while heads:
            _, job_id, handler = heads[0]
            yield self.rows[job_id]
            following = lines[handler].first()
            if following is None:
                heappop(heads)
            else:
                heapreplace(heads, (*following, handler))

    def ready_handlers(self) -> list[tuple[str, str, Line[tuple[int, int]]]]:
        """(lane, handler, line) of every line with ready jobs."""
        return [(lane, handler, line) for lane, lines in self._ready.items() for handler, line in lines.items() if line]

    def oldest_due_us(self, lane: str) -> int | None:
        """Since when the longest waiting ready job of a lane has been due."""
        first = self._due[lane].first() if lane in self._due else None
        return None if first is None else first[0]

    def _enter(self, row: Row) -> None:
        job = row.job
        self.counts.setdefault(job.lane, Counter())[row.place] += 1
        if row.place is Place.LEASED:
            self.leases.put(row.leased_until_us, job.id)
            self.held_by.setdefault(job.worker or "", set()).add(job.id)
            return
        if job.expires_us is not None:
            self.expiring.put(job.expires_us, job.id)
        if row.place is Place.READY:
            line = self._ready.setdefault(job.lane, {}).setdefault(job.handler, Line())
            line.put((job.priority, row.seq), job.id)
            self._due.setdefault(job.lane, Line()).put(job.due_us, job.id)
            self._on_ready(job.lane)
        elif row.place is Place.DELAYED:
            self.delayed.put((job.due_us, row.seq), job.id)
        else:
            self.parked.setdefault(job.handler, Line()).put(row.seq, job.id)

    def _leave(self, row: Row) -> None:
        job = row.job
        counts = self.counts[job.lane]
        counts[row.place] -= 1
        if not any(counts.values()):
            del self.counts[job.lane]
        if row.place is Place.LEASED:
            self.leases.discard(job.id)
            holder = job.worker or ""
            self.held_by[holder].discard(job.id)
            if not self.held_by[holder]:
                del self.held_by[holder]
            return
        self.expiring.discard(job.id)
        if row.place is Place.READY:
            lines = self._ready[job.lane]
            lines[job.handler].discard(job.id)
            if not lines[job.handler]:
                del lines[job.handler]
            self._due[job.lane].discard(job.id)
            if not lines:
                del self._ready[job.lane], self._due[job.lane]
        elif row.place is Place.DELAYED:
            self.delayed.discard(job.id)
        else:
            self.parked[job.handler].discard(job.id)
            if not self.parked[job.handler]:
                del self.parked[job.handler]
