"""What a NATS server must be so that the promises hold on it. Pure.

A server acknowledges before it has synced unless it is told otherwise (`sync_interval: always`): then a power cut, or
the loss of the machine, takes back what was acknowledged. Nothing but its monitoring tells how it is set.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from jobmaster.contracts.server_settings import SettingFault

OLDEST = (2, 12, 7)
"""The oldest release that is worked with. Older ones drop schedules and atomic batches without a word, or have known
security faults, which 2.12.7 and 2.14.0 closed."""
FIRST_OF_NEXT = (2, 14, 0)
ENOUGH_REPLICAS = 3


class Server(Struct, frozen=True):
    """What the servers of one agent say about themselves."""

    version: tuple[int, int, int]
    max_payload: int
    jetstream: bool
    nodes: frozenset[str]
    """The servers that hold the streams; empty: there is but one."""
    replicas: int
    syncs: Mapping[str, bool]
    """By server name, of those whose monitoring was asked."""

    @property
    def synced(self) -> bool | None:
        """Whether whatever is acknowledged is on the disk of every node; None: that can't be told."""
        if any(not sync for sync in self.syncs.values()):
            return False
        if not self.syncs or not self.nodes <= self.syncs.keys():
            return None
        return True


def faults(server: Server, *, needed_payload: int, lazy: bool) -> Iterable[SettingFault]:
    """Everything that is wrong with it. `lazy`: several copies without a sync were chosen knowingly."""
    version = ".".join(map(str, server.version))
    if not (OLDEST <= server.version < (2, 13, 0) or server.version >= FIRST_OF_NEXT):
        yield SettingFault(
            "server_version",
            version,
            "upgrade to 2.12.7 or newer of 2.12, or to 2.14.0 or newer",
            "delayed jobs would never come due, and known security faults are open",
        )
    if not server.jetstream:
        yield SettingFault(
            "jetstream",
            "off",
            "enable it: jetstream { store_dir: …, sync_interval: always }",
            "there would be nowhere to keep jobs",
        )
    if server.max_payload < needed_payload:
        yield SettingFault(
            "max_payload",
            str(server.max_payload),
            f"set max_payload to {needed_payload} or more",
            "a job or an outcome of the allowed size would be refused",
        )
    if server.synced is not True and not (lazy and server.replicas >= ENOUGH_REPLICAS):
        yield _unsynced(server)


def findings(server: Server, *, lazy: bool) -> list[str]:
    """What is accepted, and still worth telling an operator."""
    if server.synced is True or not lazy or server.replicas < ENOUGH_REPLICAS:
        return []
    where = f"acknowledged jobs are in the memory of {server.replicas} servers, not on their disks (accept_lazy_fsync)"
    return [f"{where}: they survive the loss of one server, not a power cut of all"]


def _unsynced(server: Server) -> SettingFault:
    lazy = sorted(name for name, sync in server.syncs.items() if not sync)
    if lazy:
        found, first = f"not 'always' on {', '.join(lazy)}", "set jetstream { sync_interval: always }"
    else:
        unseen = sorted(server.nodes - server.syncs.keys())
        found = f"unknown of {', '.join(unseen)}" if unseen else "unknown"
        first = "tell the http address of every server's monitoring (monitor='http://host:8222')"
    return SettingFault(
        "sync_interval",
        found,
        f"{first}, or keep {ENOUGH_REPLICAS} replicas on different machines and say accept_lazy_fsync=True",
        "a power cut can lose jobs that were acknowledged just before",
        acceptable=True,
    )
