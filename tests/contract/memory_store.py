"""The memory transport's store, as the contract suites see it."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.testing.agents.harness import AgentStore
from jobmaster.testing.clock import ManualClock
from jobmaster_agents.memory import MemoryAgent


class MemoryStore(AgentStore):
    """A store of this process, on a clock that only tests move."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()

    async def open(
        self, *, name: str | None = None, cluster: str | None = None, clock: Clock | None = None
    ) -> AgentTransport:
        agent = MemoryAgent(
            "memory://contract", cluster=cluster or self.cluster, name=name or self.name, clock=clock or self.clock
        )
        await agent.open()
        return self.keep(agent)
