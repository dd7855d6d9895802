"""AgentLink: one agent as this process sees it, opened or not yet.

A process must start though one of its agents is away. What asks such an agent is told at once, with the reason, and
goes elsewhere or tries again later; as soon as the agent was opened, the link is the agent.
"""

import asyncio
from typing import Any

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.values import ProbeReport
from jobmaster.model.errors import AgentUnreachable

OPENING_SECONDS = 6.0
"""How long an opening may take before it counts as not answered; the transports' own limits are shorter."""
CLOSING_SECONDS = 5.0

_ALWAYS = frozenset({"name", "traits", "companion"})


class AgentLink:
    """A transport whose verbs raise `AgentUnreachable` until it is open."""

    def __init__(self, agent: AgentTransport) -> None:
        self.agent = agent
        self.problem: str | None = "it is not open"
        """Why it is not open; None once it is."""
        self.opened = asyncio.Event()

    async def open(self) -> ProbeReport:
        """Open the transport. Raises what it raises; `AgentUnreachable` also if it does not answer in time."""
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                report = await self.agent.open()
        except TimeoutError:
            self.problem = f"it did not answer within {OPENING_SECONDS:g} s"
            raise AgentUnreachable(self.agent.name, self.problem, "check that its server runs") from None
        except AgentUnreachable as error:
            self.problem = error.problem
            raise
        self.problem = None
        self.opened.set()
        return report

    async def close(self) -> None:
        """Give everything back, as far as an agent that does not answer lets us. Never raises."""
        self.problem = "it is closed"
        try:
            async with asyncio.timeout(CLOSING_SECONDS):
                await self.agent.close()
        except TimeoutError:
            return

    def __getattr__(self, name: str) -> Any:
        if self.problem is None or name in _ALWAYS:
            return getattr(self.agent, name)
        return self._unreachable

    async def _unreachable(self, *_: Any, **__: Any) -> Any:
        raise AgentUnreachable(
            self.agent.name, self.problem or "it is not open", "this process tries again until it answers"
        )
