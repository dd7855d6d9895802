"""Seeker: jobs that an agent should have and has not are placed anew.

On a transport whose messages somebody else could remove (a stray acknowledgement, a stream that was purged by hand)
a job can vanish without a record. So what the master knows to be there is looked for, now and then. What is missing
twice, a pass apart and unchanged in between, was no hand-off or outcome under way.
"""

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import InventoryItem
from jobmaster.coordination.missing import missing_of, place_anew

BATCH = 500
PASS_SECONDS = 60.0

Found = dict[str, tuple[int, int]]
"""Id → epoch and version, of what is missing."""


class Seeker:
    """Goes through one agent's jobs, a page at a time."""

    def __init__(self, master: MasterStore, agent: AgentTransport, clock: Clock) -> None:
        self._master = master
        self._agent = agent
        self._clock = clock
        self._after_id = ""
        self._before: Found = {}
        self._now: Found = {}
        self._next_pass = clock.mono()

    async def run(self) -> float:
        """One page; then a pause until the next pass."""
        wait = self._next_pass - self._clock.mono()
        if wait > 0:
            return wait
        page = await self._master.on_agent(self._agent.name, self._after_id, BATCH)
        missing = await missing_of(self._agent, page)
        self._now |= {item.id: (item.epoch, item.version) for item in missing}
        await place_anew(self._agent, [item for item in missing if self._missed_before(item)])
        if page:
            self._after_id = page[-1].id
            return 0
        self._after_id, self._before, self._now = "", self._now, {}
        self._next_pass = self._clock.mono() + PASS_SECONDS
        return PASS_SECONDS

    def _missed_before(self, item: InventoryItem) -> bool:
        return self._before.get(item.id) == (item.epoch, item.version)
