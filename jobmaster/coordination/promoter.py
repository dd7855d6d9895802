"""Promoter: delayed jobs become ready when their time has come, and expired ones end."""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.store_time import StoreTime

BATCH = 500
POLL_SECONDS = 1.0
SOONEST_SECONDS = 0.001


class Promoter:
    """Promotes one agent's jobs and sleeps until the next is due, a second at most: other processes delay jobs too.

    Workers hear of it through the transport's own wake-ups.
    """

    def __init__(self, agent: AgentTransport, time: StoreTime) -> None:
        self._agent = agent
        self._time = time

    async def run(self) -> float:
        """One pass."""
        report = await self._agent.promote(BATCH)
        if report.more:
            return 0
        if report.next_due_us is None:
            return POLL_SECONDS
        until_due = (report.next_due_us - await self._time.fresh_us()) / 1e6
        return min(POLL_SECONDS, max(SOONEST_SECONDS, until_due))
