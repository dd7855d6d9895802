"""Gauges: what a process last saw of something that goes up and down, for whatever exports metrics.

Processes attached to one agent see the same: over them, take the highest and not the sum.
"""

NAMES = {"unserved_jobs": ("agent", "lane")}
"""Each with its labels. `unserved_jobs`: jobs of a lane on an agent that could run if a live worker there served it."""

Labels = tuple[str, ...]

_values: dict[str, dict[Labels, float]] = {name: {} for name in NAMES}


def gauge(name: str, value: float, *labels: str) -> None:
    """It is that now. One that was set once stays known, at zero too, so that an alert on it can end."""
    assert len(labels) == len(NAMES[name]), (name, labels)
    if value or labels in _values[name]:
        _values[name][labels] = value


def gauges() -> dict[str, dict[Labels, float]]:
    """All of them in this process: name → labels → value."""
    return {name: dict(values) for name, values in _values.items()}
