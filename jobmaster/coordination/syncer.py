"""Syncer: what happened on an agent reaches the master's history.

Where both live in one database, plain records move over there and no row travels to this process; the others, on which
the master has to act, and all of a separate agent's, are read, applied and confirmed. All three steps may be repeated,
and several processes may do them at once.
"""

from collections import Counter

import structlog

from jobmaster.contracts.agent import AgentTransport
from jobmaster.contracts.clock import Clock
from jobmaster.contracts.entries import ApplyAnswer
from jobmaster.contracts.master import MasterStore
from jobmaster.contracts.values import RecordKind

BATCH = 1_000
POLL_SECONDS = 2.0
LINGER_SECONDS = 0.1
"""Least time between two passes: under load every pass then has a batch worth its transaction."""

_log = structlog.get_logger("jobmaster.syncer")


class Syncer:
    """Drains one agent's outbox.

    `older_than_us` leaves the youngest records to whoever made them: for processes that only look after the agent.
    """

    def __init__(
        self, master: MasterStore, agent: AgentTransport, clock: Clock, *, shared: bool, older_than_us: int = 0
    ) -> None:
        self._master = master
        self._agent = agent
        self._clock = clock
        self._outbox = agent.traits.shared_outbox if shared else None
        self._older_than_us = older_than_us
        self._next_pass = clock.mono()

    async def run(self) -> float:
        """One pass."""
        wait = self._next_pass - self._clock.mono()
        if wait > 0:
            return wait
        if await self.sync():
            return 0
        self._next_pass = self._clock.mono() + LINGER_SECONDS
        return POLL_SECONDS

    async def sync(self) -> bool:
        """Bring one batch over; whether there may be more."""
        if self._outbox is None:
            return await self._apply(effects_only=False)
        report = await self._master.move(self._agent.name, self._outbox, BATCH)
        if report.effects and await self._apply(effects_only=True):
            return True
        return report.more

    async def _apply(self, *, effects_only: bool) -> bool:
        records = await self._agent.changes(BATCH, 0 if effects_only else self._older_than_us)
        full = len(records) == BATCH
        if effects_only:
            records = [record for record in records if record.kind is RecordKind.EFFECT]
        if not records:
            return False
        answers = Counter(await self._master.apply(self._agent.name, records))
        await self._agent.confirm([record.seq for record in records])
        if answers[ApplyAnswer.QUARANTINED]:
            _log.error("syncer.quarantined", agent=self._agent.name, records=answers[ApplyAnswer.QUARANTINED])
        return full
