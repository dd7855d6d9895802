"""Watch: which agents leave the cluster or are given up, as the master says, is known to whoever hands jobs over."""

from jobmaster.agents_open import Agents
from jobmaster.contracts.entries import SHUNNED
from jobmaster.contracts.master import MasterStore

POLL_SECONDS = 2.0


class Watch:
    """Keeps `Agents.leaving` up to date. What is handed to an agent between its first drain and the next look here is
    refused by the agent's own store, and goes back."""

    def __init__(self, master: MasterStore, agents: Agents) -> None:
        self._master = master
        self._agents = agents

    async def run(self) -> float:
        """One pass."""
        self._agents.leaving = {
            entry.name: entry.target for entry in await self._master.agents() if entry.state in SHUNNED
        }
        return POLL_SECONDS
