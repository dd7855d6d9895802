"""The memory transport."""

from jobmaster_agents.memory.agent import MemoryAgent

__all__ = ["MemoryAgent"]
