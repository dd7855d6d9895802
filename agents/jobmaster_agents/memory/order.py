"""Order: the ids of all jobs here, sorted, for everything that pages. Blocks keep adding and removing near O(√n)."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

_BLOCK = 512


class Order:
    """A sorted set of ids. Changing it while one of its iterators runs is not allowed."""

    def __init__(self) -> None:
        self._blocks: list[list[str]] = []

    def add(self, job_id: str) -> None:
        """The id must not be here."""
        if not self._blocks:
            self._blocks.append([job_id])
            return
        at = self._block_of(job_id)
        block = self._blocks[at]
        insort(block, job_id)
        if len(block) > 2 * _BLOCK:
            self._blocks[at : at + 1] = [block[:_BLOCK], block[_BLOCK:]]

    def remove(self, job_id: str) -> None:
        """The id must be here."""
        at = self._block_of(job_id)
        block = self._blocks[at]
        position = bisect_left(block, job_id)
        assert block[position] == job_id
        del block[position]
        if not block:
            del self._blocks[at]

    def after(self, job_id: str) -> Iterator[str]:
        """Ids greater than this one, ascending."""
        if not self._blocks:
            return
        at = self._block_of(job_id)
        yield from self._blocks[at][bisect_right(self._blocks[at], job_id) :]
        for block in self._blocks[at + 1 :]:
            yield from block

    def before(self, job_id: str | None) -> Iterator[str]:
        """Ids less than this one, descending; from the greatest if None."""
        if not self._blocks:
            return
        at = len(self._blocks) - 1 if job_id is None else self._block_of(job_id)
        block = self._blocks[at]
        yield from reversed(block if job_id is None else block[: bisect_left(block, job_id)])
        for block in reversed(self._blocks[:at]):
            yield from reversed(block)

    def _block_of(self, job_id: str) -> int:
        return max(0, bisect_right(self._blocks, job_id, key=lambda block: block[0]) - 1)
