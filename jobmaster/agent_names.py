"""Which store stands behind an agent's name, as the master knows it, and changing that on purpose."""

from msgspec.structs import replace

from jobmaster.agents_open import Agents
from jobmaster.cluster import Cluster
from jobmaster.contracts.clock import Clock, SystemClock
from jobmaster.contracts.entries import AgentEntry
from jobmaster.diagnosis import make_agent, make_master
from jobmaster.introduction import fingerprint
from jobmaster.model.errors import JobMasterError, NameInvalid


async def known_agents(cluster: Cluster, clock: Clock | None = None) -> list[AgentEntry]:
    """The agents the master knows, by name. Migrates nothing."""
    master = make_master(cluster.settings, clock or SystemClock(), migrate=False)
    try:
        await master.open()
        return await master.agents()
    finally:
        await master.close()


async def repoint(cluster: Cluster, name: str, clock: Clock | None = None) -> tuple[AgentEntry, AgentEntry]:
    """Let an agent's name stand for the store that the settings name now: what was known before, and what is. No agent
    is opened for that. A store that is not the known one in its known life is quarantined and reconciled when the next
    process starts: what the master knows to wait there is placed anew. Raises `NameInvalid`, and `JobMasterError` for
    an agent the master does not know or that somebody else has just changed."""
    settings, clock = cluster.settings, clock or SystemClock()
    if name not in settings.agents:
        raise NameInvalid("agent", name, f"one of {', '.join(settings.agents)}")
    master = make_master(settings, clock, migrate=False)
    try:
        await master.open()
        known = next((entry for entry in await master.agents() if entry.name == name), None)
        if known is None:
            raise JobMasterError(f"the master knows no agent {name!r} yet; it is entered when a process first starts")
        agents = Agents({name: make_agent(settings, name, clock, migrate=False)}, clock, master.database_key)
        agent = settings.agents[name]
        wanted = replace(known, kind=agent.scheme, fingerprint=fingerprint(agent, agents))
        stored = await master.renew_agent(known, wanted)
        if stored != replace(wanted, quarantined=None):
            raise JobMasterError(f"agent {name!r} was changed by somebody else just now; look at it and try again")
        return known, stored
    finally:
        await master.close()
