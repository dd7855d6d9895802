"""Retirement: schedules that left the code end, once the time has passed in which they might come back."""

from collections.abc import Sequence

import structlog

from jobmaster.agents_open import Agents
from jobmaster.contracts.master import MasterStore
from jobmaster.withdrawal import take_back

POLL_SECONDS = 60.0

_log = structlog.get_logger("jobmaster.planner")


class Retirement:
    """Says on the master which profiles this process has, and ends what nobody has any more."""

    def __init__(self, master: MasterStore, agents: Agents, profiles: Sequence[str], after_us: int) -> None:
        self._master = master
        self._agents = agents
        self._profiles = tuple(profiles)
        self._after_us = after_us

    async def run(self) -> float:
        """One pass."""
        taken = await self._master.retire(self._profiles, self._after_us)
        if taken:
            withdrawal = await take_back(self._master, self._agents, taken)
            _log.info("schedules.retired", ticks_withdrawn=len(withdrawal.withdrawn), ticks_ran=len(withdrawal.ran))
        return POLL_SECONDS
