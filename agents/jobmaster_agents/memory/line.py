"""Line: ids waiting in order. A heap whose entries die lazily, so that leaving from the middle is cheap."""

import heapq
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Any)

_SLACK = 64
"""Dead entries tolerated beyond as many as there are live ones."""


class Line(Generic[Key]):
    """Each id stands here at most once, under the key it was last put with. `put` and `discard` are O(log n)
    amortised, `first` too; length is exact."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._heap: list[tuple[Key, str]] = []

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, key: Key, job_id: str) -> None:
        self._keys[job_id] = key
        heapq.heappush(self._heap, (key, job_id))
        if len(self._heap) > 2 * len(self._keys) + _SLACK:
            self._heap = [(key, job_id) for job_id, key in self._keys.items()]
            heapq.heapify(self._heap)

    def discard(self, job_id: str) -> None:
        self._keys.pop(job_id, None)

    def first(self) -> tuple[Key, str] | None:
        """The least key and its id; None if nobody is here."""
        while self._heap:
            key, job_id = self._heap[0]
            if self._keys.get(job_id) == key:
                return key, job_id
            heapq.heappop(self._heap)
        return None
