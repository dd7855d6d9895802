"""Hypothesis plays with the memory transport: see `jobmaster.testing.agents.machine`."""

from hypothesis import HealthCheck, Phase, settings

from jobmaster.testing.agents.harness import AgentStore
from jobmaster.testing.agents.machine import AgentMachine
from tests.contract.memory_store import MemoryStore
from tests.sizes import SIZES


class MemoryMachine(AgentMachine):
    def new_store(self) -> AgentStore:
        return MemoryStore()


TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.settings = settings(
    max_examples=SIZES.examples * 3,
    stateful_step_count=40,
    deadline=None,
    # Explaining a failure traces every line, and takes minutes here.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
