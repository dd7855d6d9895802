"""Moving a cluster's master to another database, and taking that back."""

from collections.abc import Callable

from jobmaster.actor import this_process
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.introduction import after_relocation
from jobmaster.master.opening import masked, movable_master
from jobmaster.master.relocation import Relocated, Relocation, unseal
from jobmaster.model.errors import ConfigurationError


def _quiet(words: str) -> None:
    return


async def move_master(
    source: str,
    target: str,
    cluster: str,
    *,
    who: str | None = None,
    tell: Callable[[str], None] = _quiet,
    clock: Clock | None = None,
) -> Relocated:
    """Move a cluster's master from one database to another, empty one, both given as URLs. Afterwards the old one
    refuses every write, and processes that are told of the new one go on with all it had. Repeating it completes what
    was cut short. Raises `ConfigurationError`, `MasterUnavailable`, and `JobMasterError` where the new one is not
    empty."""
    clock = clock or SystemClock()
    old, new = movable_master(source, cluster, clock), movable_master(target, cluster, clock, filling=True)
    if old.database_key == new.database_key:
        raise ConfigurationError([f"master URL {masked(target)!r}: it is the same database; name another one"])

    moving = Relocation(old, new, lambda entry: after_relocation(entry, old.database_key, new.database_key), tell)
    return await moving.run(who or this_process(), (masked(source), masked(target)))


async def unseal_master(url: str, cluster: str, *, clock: Clock | None = None) -> None:
    """Have a sealed master take writes again, because the one it was moved to was given up."""
    await unseal(movable_master(url, cluster, clock or SystemClock()))
