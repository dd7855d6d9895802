"""Tombstones: what is remembered of jobs that left, so that nothing late can bring one back or settle it twice."""

from collections.abc import Callable

from msgspec import Struct

from jobmaster.contracts.values import PUT_WINDOW_US, Revocation, RevokeKind

LIFE_US = 2 * PUT_WINDOW_US


class Tombstone(Struct, frozen=True):
    """The last word on an id, up to and including `epoch`."""

    epoch: int
    token: int
    """Of the last lease that ended, 0 if there was none."""
    digest: int
    """What that lease came to."""
    at_us: int
    moved: bool = False
    """Gone back to the master, not ended."""
    revoked: RevokeKind | None = None
    answer: Revocation | None = None
    """What the first revoke was told."""


class Tombstones:
    """One per id, in order of writing."""

    def __init__(self) -> None:
        self._stones: dict[str, Tombstone] = {}

    def get(self, job_id: str) -> Tombstone | None:
        return self._stones.get(job_id)

    def set(self, job_id: str, stone: Tombstone) -> None:
        self._stones.pop(job_id, None)
        self._stones[job_id] = stone

    def prune(self, limit: int, now_us: int, needed: Callable[[str], bool]) -> int:
        """Forget up to `limit` that outlived their use; how many."""
        gone: list[str] = []
        for job_id, stone in self._stones.items():
            if len(gone) == limit or stone.at_us + LIFE_US >= now_us:
                break
            if not needed(job_id):
                gone.append(job_id)
        for job_id in gone:
            del self._stones[job_id]
        return len(gone)
