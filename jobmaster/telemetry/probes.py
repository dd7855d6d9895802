"""Probes: counters of the rare things that must have happened in a fault test for its green to mean anything.

Cheap enough to stay on in production.
"""

from collections import Counter

NAMES = (
    "agent_given_up",
    "duplicate_put",
    "indeterminate_resolved",
    "lease_lapsed",
    "lease_lost",
    "late_result",
    "outbox_retried",
    "quarantined",
    "stale_settle",
    "store_quarantined",
    "store_reconciled",
    "suspect_run",
    "tick_late",
    "tick_missed",
    "tick_overlapped",
    "tick_planned",
    "newer_data",
    "unreadable_parcel",
)

_counts: Counter[str] = Counter()


def probe(name: str, times: int = 1) -> None:
    """It happened."""
    assert name in NAMES, name
    _counts[name] += times


def probes() -> dict[str, int]:
    """How often each happened in this process."""
    return {name: _counts[name] for name in NAMES}
