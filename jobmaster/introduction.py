"""What a process makes known on the master when it starts: its agents and its handlers' definitions."""

from hashlib import blake2s

import structlog

from jobmaster.agents_open import Agents
from jobmaster.contracts.entries import AgentEntry
from jobmaster.contracts.master import MasterStore
from jobmaster.model.errors import ConfigurationError
from jobmaster.registry import Registry
from jobmaster.settings import AgentSettings, ClusterSettings

WITH_MASTER = "in the master's database"

_log = structlog.get_logger("jobmaster.runtime")


def fingerprint(settings: AgentSettings, agents: Agents) -> str:
    """Tells the store behind an agent's name from any other, without a secret in it.

    One that lives in the master's own database is known by just that, so the file may be moved with all in it.
    """
    if agents.shares_master(settings.name):
        return WITH_MASTER
    identity = agents[settings.name].traits.database_key or settings.shown_url
    return f"{settings.scheme}-{blake2s(identity.encode(), digest_size=6).hexdigest()}"


async def introduce(master: MasterStore, agents: Agents, settings: ClusterSettings, registry: Registry) -> None:
    """Make agents and definitions known. Raises `ConfigurationError`, with nothing changed for that agent, where a
    name stood for another store before: its jobs would be lost from sight."""
    known = {entry.name: entry for entry in await master.agents()}
    faults: list[str] = []
    for name, agent in settings.agents.items():
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
                f"{entry.fingerprint}; give the new one a new name, or point {name!r} at its old store"
            )
            continue
        if before is not None and agents[name].traits.durable and before.incarnation != entry.incarnation:
            _log.warning("agent.replaced", agent=name, before=before.incarnation, now=entry.incarnation)
        await master.enter_agent(entry)
    if faults:
        raise ConfigurationError(faults)
    await master.define([handler.definition() for handler in registry])
