"""Census: which jobs stand in the stream, by id and lane. Subjects say both, so no message is read for it.

Listing a stream's subjects takes the server about 3 s for a million. So a list that took long to make serves for a
while: twenty times as long as it took.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from time import monotonic

from jobmaster_agents.nats import api
from jobmaster_agents.nats.store import Store
from jobmaster_agents.nats.subjects import lane_of

QUICK_SECONDS = 0.005
"""A list made in that time is made anew every time."""
SHARE = 20
PATIENCE = 60.0


class Census:
    """Of one agent, for one handle."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ids: list[str] = []
        self._until = 0.0

    async def between(self, after_id: str, before_id: str | None = None, *, anew: bool = False) -> "Span":
        """Ids in order, each once. `anew`: of a list that is made now."""
        if anew or monotonic() >= self._until:
            await self._list()
        ids = self._ids
        end = len(ids) if before_id is None else bisect_left(ids, before_id)
        return Span(ids, bisect_right(ids, after_id), end)

    async def of_lane(self, lane: str | None) -> list[str]:
        """Ids in order, of a lane or of all; listed now."""
        return _ids_of(subject for subject in await self._list() if lane in (None, lane_of(subject)))

    async def _list(self) -> list[str]:
        begun = monotonic()
        found = await self._subjects(self._store.subjects.jobs)
        self._ids = _ids_of(found)
        took = monotonic() - begun
        self._until = begun + SHARE * took if took > QUICK_SECONDS else 0.0
        return found

    async def _subjects(self, pattern: str) -> list[str]:
        store = self._store
        found: list[str] = []
        while True:
            answer = await api.call(
                store.link,
                f"STREAM.INFO.{store.subjects.jobs_stream}",
                {"subjects_filter": pattern, "offset": len(found)},
                within=PATIENCE,
            )
            page = answer["state"].get("subjects") or {}
            found += page
            if not page or len(found) >= answer.get("total", 0):
                return found


class Span:
    """Some of a list that is not changed any more: not a copy of them, of which there may be a million."""

    __slots__ = ("_end", "_ids", "_start")

    def __init__(self, ids: list[str], start: int, end: int) -> None:
        self._ids = ids
        self._start = start
        self._end = max(start, end)

    def __len__(self) -> int:
        return self._end - self._start

    def first(self, skipped: int, most: int) -> list[str]:
        """So many from the front, after those skipped."""
        start = self._start + skipped
        return self._ids[start : min(start + most, self._end)]

    def last(self, skipped: int, most: int) -> list[str]:
        """So many from the end, backwards, before those skipped."""
        end = self._end - skipped
        return self._ids[max(end - most, self._start) : max(end, self._start)][::-1]


def _ids_of(subjects: Iterable[str]) -> list[str]:
    # As `Subjects.job_id`, which costs as much again for being called.
    return sorted({subject.rsplit(".", 2)[1] for subject in subjects})
