"""What a process makes known on the master when it starts: its agents, its handlers' definitions and the schedules that
its code declares."""

from collections.abc import Mapping, Sequence
from hashlib import blake2s

import structlog
from msgspec.structs import replace

from jobmaster.agents_open import Agents
from jobmaster.contracts.entries import AgentEntry
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.scheduling import Schedule
from jobmaster.happenings import note
from jobmaster.model.errors import ConfigurationError
from jobmaster.registry import Registry
from jobmaster.settings import AgentSettings, ClusterSettings
from jobmaster.withdrawal import take_back

WITH_MASTER = "in the master's database"
IDLE_SECONDS = 60.0

_log = structlog.get_logger("jobmaster.runtime")


def fingerprint(settings: AgentSettings, agents: Agents) -> str:
    """Tells the store behind an agent's name from any other, without a secret in it.

    One that lives in the master's own database is known by just that, so the file may be moved with all in it.
    """
    if agents.shares_master(settings.name):
        return WITH_MASTER
    identity = agents[settings.name].traits.database_key or settings.shown_url
    return fingerprint_of(settings.scheme, identity)


def fingerprint_of(kind: str, identity: str) -> str:
    """Of a store that is not in the master's database."""
    return f"{kind}-{blake2s(identity.encode(), digest_size=6).hexdigest()}"


def after_relocation(entry: AgentEntry, old_key: str | None, new_key: str | None) -> AgentEntry:
    """An agent as a master in another database knows it: one that lived in the old one's database has its own from now
    on, and one that lives in the new one's has none."""
    if entry.fingerprint == WITH_MASTER and old_key is not None:
        return replace(entry, fingerprint=fingerprint_of(entry.kind, old_key))
    if new_key is not None and entry.fingerprint == fingerprint_of(entry.kind, new_key):
        return replace(entry, fingerprint=WITH_MASTER)
    return entry


class Introduction:
    """Introduces each agent once it is open, and the definitions, as soon as the master answers."""

    def __init__(
        self,
        master: MasterStore,
        agents: Agents,
        settings: ClusterSettings,
        registry: Registry,
        declared: Mapping[str, Sequence[Schedule]],
    ) -> None:
        self._declared = declared
        self._master = master
        self._agents = agents
        self._settings = settings
        self._registry = registry
        self._known: set[str] = set()
        self._defined = False

    async def run(self) -> float:
        """One pass. Raises `ConfigurationError` as `introduce` does, and what the master raises; then repeat it."""
        new = [name for name in self._agents if self._agents.problem(name) is None and name not in self._known]
        if new:
            await introduce(self._master, self._agents, self._settings, new)
            self._known.update(new)
        if not self._defined:
            await define(self._master, self._registry)
            if self._declared:
                await declare(self._master, self._agents, self._declared, self._settings.timings.retire_after)
            self._defined = True
        return IDLE_SECONDS


async def define(master: MasterStore, registry: Registry) -> None:
    """Make the handlers of this process known, and what of them is new in the history."""
    known = {entry.name: entry for entry in await master.definitions()}
    definitions = [handler.definition() for handler in registry]
    await master.define(definitions)
    for handler, entry in zip(registry, definitions, strict=True):
        if known.get(entry.name) != entry:
            kind = "handler.changed" if entry.name in known else "handler.defined"
            await note(master, kind, entry.name, {"data_version": handler.version})


async def introduce(master: MasterStore, agents: Agents, settings: ClusterSettings, names: Sequence[str]) -> None:
    """Make these agents, which are open, known. Raises `ConfigurationError`, with nothing changed for that agent, where
    a name stood for another store before: its jobs would be lost from sight."""
    known = {entry.name: entry for entry in await master.agents()}
    faults: list[str] = []
    for name in names:
        agent = settings.agents[name]
        report = agents.reports[name]
        entry = AgentEntry(
            name=name,
            kind=agent.scheme,
            fingerprint=fingerprint(agent, agents),
            incarnation=report.incarnation,
            high_water=report.high_water,
        )
        before = known.get(name)
        if before is not None and before.fingerprint != entry.fingerprint:
            faults.append(
                f"agent {name!r} is known as another store: it was {before.fingerprint}, {agent.shown_url} is "
                f"{entry.fingerprint}; give the new one a new name, or point {name!r} at its old store, or, if that is "
                f"gone or has moved here, run `jobmaster agents repoint {name}`"
            )
            continue
        if before is None:
            await master.enter_agent(entry)
            await note(master, "agent.entered", name, {"kind": entry.kind, "fingerprint": entry.fingerprint})
        elif before.incarnation != entry.incarnation and not agents[name].traits.restartable:
            # It promises nothing, so there is nothing to reconcile. Any other is judged by its sentry.
            await master.renew_agent(before, entry)
    if faults:
        raise ConfigurationError(faults)


async def declare(
    master: MasterStore, agents: Agents, declared: Mapping[str, Sequence[Schedule]], retire_after: float
) -> None:
    """Bring the schedules of these profiles into line with the code. Raises `ConfigurationError`, with nothing changed,
    where a key belongs to somebody else."""
    synced = await master.sync_profiles(declared, round(retire_after * 1e6))
    if synced.conflicts:
        raise ConfigurationError([conflict(key, owner) for key, owner in synced.conflicts])
    if not synced.nothing:
        _log.info(
            "schedules.synced",
            added=synced.added,
            changed=synced.changed,
            revived=synced.revived,
            retiring=synced.retiring,
        )
    await take_back(master, agents, synced.taken)


def conflict(key: str, owner: str) -> str:
    """A declared key that is taken, and what to do about it."""
    whose = f"belongs to profile {owner!r}" if owner else "was made at run time"
    remedy = "remove it there first" if owner else "cancel it first, `jobmaster schedules cancel`"
    return f"schedule {key!r} {whose}; {remedy}, or choose another key"
