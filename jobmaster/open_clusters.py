"""The clusters that are open on an event loop, and which of them is meant where none is named.

Kept by loop and not by process: a scheduler belongs to its loop, and what one test or thread opens is nobody else's.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from jobmaster.model.errors import ConfigurationError, JobMasterError, OptionInvalid

if TYPE_CHECKING:
    from jobmaster.cluster import Cluster
    from jobmaster.scheduler import Scheduler

_open: "WeakKeyDictionary[asyncio.AbstractEventLoop, list[tuple[Cluster, Scheduler]]]" = WeakKeyDictionary()


def enter(cluster: "Cluster", scheduler: "Scheduler") -> Callable[[], None]:
    """It is open on the running loop until what this returns is called. Raises `ConfigurationError` where another
    cluster is the default already."""
    here = _open.setdefault(asyncio.get_running_loop(), [])
    rival = next((other for other, _ in here if other.is_default and other.name != cluster.name), None)
    if cluster.is_default and rival is not None:
        raise ConfigurationError(
            [f"clusters {rival.name!r} and {cluster.name!r} both claim to be the default; only one may call .default()"]
        )
    entry = (cluster, scheduler)
    here.append(entry)
    return lambda: here.remove(entry)


def scheduler_of(name: str | None) -> "Scheduler":
    """Of the cluster of that name, or of the default one: the one that claimed it, or the only one there is. Where a
    cluster is open several times, the first of them. Raises `JobMasterError`."""
    try:
        here = _open.get(asyncio.get_running_loop(), [])
    except RuntimeError:  # a thread without a loop
        here = []
    names = ", ".join(dict.fromkeys(repr(cluster.name) for cluster, _ in here))
    if not here:
        raise JobMasterError(
            "no cluster is open on this event loop; call this inside `async with cluster.run()` or `connect()`"
        )
    if name is not None:
        found = [scheduler for cluster, scheduler in here if cluster.name == name]
        if not found:
            raise OptionInvalid("cluster", name, f"one that is open here: {names}")
        return found[0]
    claimed = [scheduler for cluster, scheduler in here if cluster.is_default]
    if not claimed and len({cluster.name for cluster, _ in here}) > 1:
        raise JobMasterError(
            f"several clusters are open here and none is the default: {names}; call .default() on the builder of one, "
            f"or name the one that is meant, Scheduler.of(NAME)"
        )
    return (claimed or [scheduler for _, scheduler in here])[0]
