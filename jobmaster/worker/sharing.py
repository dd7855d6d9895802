"""Sharing: how lanes that share slots divide a claim, where their worker does not treat them alike."""

from collections.abc import Mapping, Sequence

STRICT_SHARE = 8
"""Under strict order one part in this many goes to the lanes behind the first, so that none of them starves."""


class Sharing:
    """Divides claims among lanes by weight, or strictly in their order. What a lane is due beyond whole jobs is kept
    for its next turn, so that shares hold over time, however small the claims are."""

    def __init__(self, lanes: Sequence[str], weights: Mapping[str, int], *, strict: bool) -> None:
        self._lanes = tuple(lanes)
        self._weights = weights
        self._strict = strict
        self._due = dict.fromkeys(lanes, 0.0)

    def divide(self, limit: int, rich: Sequence[str]) -> dict[str, int]:
        """Quotas that add up to `limit`, for lanes that are known to have enough."""
        shares = self._shares([lane for lane in self._lanes if lane in rich])
        for lane, share in shares.items():
            # No debt is carried over a time in which a lane was alone, and no more credit than one claim.
            self._due[lane] = min(max(self._due[lane], -float(limit)), float(limit)) + limit * share
        quotas = {lane: max(0, min(limit, int(self._due[lane]))) for lane in shares}
        left = limit - sum(quotas.values())
        for lane in sorted(shares, key=lambda lane: quotas[lane] - self._due[lane]):
            # The last parts of a whole go to who is due the most.
            given = min(left, 1) if left > 0 else max(left, -quotas[lane])
            quotas[lane] += given
            left -= given
        if left > 0:
            quotas[next(iter(shares))] += left
        for lane, quota in quotas.items():
            self._due[lane] -= quota
        return {lane: quota for lane, quota in quotas.items() if quota > 0}

    def _shares(self, rich: list[str]) -> dict[str, float]:
        if self._strict and len(rich) > 1:
            rest = 1 / STRICT_SHARE / (len(rich) - 1)
            return {lane: rest if place else 1 - 1 / STRICT_SHARE for place, lane in enumerate(rich)}
        total = sum(self._weights.get(lane, 1) for lane in rich)
        return {lane: 1.0 if self._strict else self._weights.get(lane, 1) / total for lane in rich}
